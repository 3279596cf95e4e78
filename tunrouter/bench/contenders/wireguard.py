"""wireguard-go: the tunnel in userspace to be compared with. Its MTU is wg-quick's, 80 below the underlay's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tunrouter.bench.contenders.rival import Rival
from tunrouter.bench.contenders.site import START_SECONDS, Site
from tunrouter.bench.namespaces import run, start_time, wait_until
from tunrouter.bench.packages import Package, fetch

PACKAGE: Final = Package("wireguard-go", probe=("usr/bin/wireguard-go", "--version"))
SOCKETS: Final = Path("/var/run/wireguard")
PORT: Final = 51820
OVERHEAD: Final = 80
"""Header and tag 32, UDP 8, an outer IPv6 header 40: wg-quick leaves room for both families."""


class WireGuardGo(Rival):
    name = "wireguard-go"

    def obtain(self) -> str:
        sweep_sockets()
        self._place = fetch(PACKAGE)
        return self._place.version(PACKAGE.name)

    def mtu(self, underlay: int) -> int:
        return underlay - OVERHEAD

    def device(self, site: Site) -> str:
        # The control socket's name is machine-wide, so the device's carries the owner.
        return f"tlwg{os.getpid()}n{site.host.number}"

    def socket(self, site: Site) -> Path:
        return SOCKETS / f"{self.device(site)}.sock"

    def prepare(self, site: Site) -> None:
        site.write("private", run(["wg", "genkey"]).stdout)
        environment = self._place.environment() | {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
        device = self.device(site)
        site.spawn(self._place.program("usr/bin/wireguard-go"), device, device=device, environment=environment)

    def join(self, here: Site, there: Site) -> None:
        device = self.device(here)
        wait_until(f"wireguard-go answers (log: {here.log})", self.socket(here).exists, START_SECONDS)
        public = run(["wg", "pubkey"], stdin=(there.directory / "private").read_text()).stdout.strip()
        here.namespace.run(
            "wg", "set", device, "listen-port", str(PORT), "private-key", str(here.directory / "private"),
            "peer", public, "allowed-ips", there.network, "endpoint", f"{there.host.address}:{PORT}",
        )  # fmt: skip
        here.namespace.ip(
            f"link set {device} mtu {self.mtu(self.lab.fabric.mtu)} up", f"route add {there.network} dev {device}"
        )

    def close(self) -> None:
        super().close()
        for site in self.sites:
            self.socket(site).unlink(missing_ok=True)


def sweep_sockets() -> None:
    """Removes the control sockets that a killed run left."""
    for socket in SOCKETS.glob("tlwg*n*.sock"):
        pid = socket.name.removeprefix("tlwg").partition("n")[0]
        if pid.isdigit() and start_time(int(pid)) is None:
            socket.unlink(missing_ok=True)
