"""Nebula, without lighthouses: each host knows the other's endpoint, and the pods are `unsafe_routes` behind it.

Its MTU is its own default, 1,300 on an underlay of 1,500; on a larger one the same 200 bytes below.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tunrouter.bench.contenders.rival import Rival
from tunrouter.bench.contenders.site import Site
from tunrouter.bench.namespaces import run
from tunrouter.bench.packages import Package, fetch

PACKAGE: Final = Package("nebula", probe=("usr/bin/nebula", "-version"), suites=("sid", "trixie"))
PORT: Final = 4242
DEVICE: Final = "nebula1"
OVERHEAD: Final = 200


class Nebula(Rival):
    name = "nebula"

    def obtain(self) -> str:
        self._place = fetch(PACKAGE)
        return self._place.version(PACKAGE.name)

    def mtu(self, underlay: int) -> int:
        return underlay - OVERHEAD

    def prepare(self, site: Site) -> None:
        """A certificate for the site, signed by an authority that is made with the first."""
        authority = self.sites[0].directory
        tool = self._place.program("usr/bin/nebula-cert")
        if not (authority / "ca.crt").exists():
            run([tool, "ca", "-name", "lab", "-out-crt", f"{authority}/ca.crt", "-out-key", f"{authority}/ca.key"])
        run([
            tool, "sign", "-ca-crt", f"{authority}/ca.crt", "-ca-key", f"{authority}/ca.key",
            "-name", site.host.name, "-ip", f"{address(site)}/24", "-subnets", site.network,
            "-out-crt", f"{site.directory}/host.crt", "-out-key", f"{site.directory}/host.key",
        ])  # fmt: skip

    def join(self, here: Site, there: Site) -> None:
        any_traffic = [{"port": "any", "proto": "any", "host": "any", "local_cidr": "0.0.0.0/0"}]
        configuration = {
            "pki": {
                "ca": f"{self.sites[0].directory}/ca.crt",
                "cert": f"{here.directory}/host.crt",
                "key": f"{here.directory}/host.key",
            },
            "static_host_map": {address(there): [f"{there.host.address}:{PORT}"]},
            "lighthouse": {"am_lighthouse": False, "hosts": []},
            "listen": {"host": "0.0.0.0", "port": PORT},  # noqa: S104  (of a namespace)
            "tun": {
                "dev": DEVICE,
                "mtu": self.mtu(self.lab.fabric.mtu),
                "unsafe_routes": [{"route": there.network, "via": address(there)}],
            },
            "firewall": {"outbound": any_traffic, "inbound": any_traffic},
            "logging": {"level": "warning"},
        }
        # JSON is YAML.
        path = here.write("config.yml", msgspec.json.encode(configuration).decode())
        program = self._place.program("usr/bin/nebula")
        here.spawn(program, "-config", str(path), device=DEVICE, environment=self._place.environment())


def address(site: Site) -> str:
    """The host's own, inside Nebula."""
    return f"10.41.0.{site.host.number}"
