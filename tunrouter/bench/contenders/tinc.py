"""tinc 1.0 as a router, with the ciphers and the path MTU discovery of its defaults.

Its device keeps an MTU of 1,500; it clamps TCP to the path MTU that it finds, and answers what is longer with ICMP.
"""

from __future__ import annotations

from typing import Final

from tunrouter.bench.contenders.rival import Rival
from tunrouter.bench.contenders.site import Site
from tunrouter.bench.namespaces import run
from tunrouter.bench.packages import OWN, Package, fetch

PACKAGE: Final = Package(
    "tinc", probe=("usr/sbin/tincd", "--version"), suites=(OWN, "trixie", "sid"), libraries=("liblzo2-2",)
)
DEVICE: Final = "tinc0"
MTU: Final = 1500
"""The longest packet that Debian's build carries (it has no jumbo frames)."""


class Tinc(Rival):
    name = "tinc"

    def obtain(self) -> str:
        self._place = fetch(PACKAGE)
        self._program = self._place.program("usr/sbin/tincd")
        return self._place.version(PACKAGE.name)

    def mtu(self, underlay: int) -> int:
        return min(MTU, underlay)

    def prepare(self, site: Site) -> None:
        name = site.host.name
        site.write("tinc.conf", f"Name = {name}\nMode = router\nInterface = {DEVICE}\nAddressFamily = ipv4\n")
        site.write(f"hosts/{name}", f"Address = {site.host.address}\nSubnet = {site.network}\n")
        run([self._program, "-c", str(site.directory), "-K2048"], stdin="", env=self._place.environment())

    def join(self, here: Site, there: Site) -> None:
        other = there.host.name
        here.write(f"hosts/{other}", (there.directory / "hosts" / other).read_text())
        with (here.directory / "tinc.conf").open("a") as configuration:
            configuration.write(f"ConnectTo = {other}\n")
        options = ("-c", str(here.directory), "--pidfile", str(here.directory / "tinc.pid"), "-D")
        here.spawn(self._program, *options, device=DEVICE, environment=self._place.environment())
        here.namespace.ip(f"link set {DEVICE} addrgenmode none up", f"route add {there.network} dev {DEVICE}")
