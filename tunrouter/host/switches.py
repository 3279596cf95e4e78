"""Kernel switches of the whole host that the network needs, and what they were before.

Law: the kernel is the only record. The bridge's alias says what the switches were when it was made, so the record lives
exactly as long as what needs the switches, and `reset` can put them back without anybody's memory.
"""

from __future__ import annotations

from typing import Final

from tunrouter.edge import sysctl
from tunrouter.edge.netlink import Netlink

WANTED: Final = (
    ("net/ipv4/ip_forward", 1),
    # The kernel sends redirects if `all` or the device says so; with `all` off other devices still obey their own.
    ("net/ipv4/conf/all/send_redirects", 0),
)
MARK: Final = "tunrouter-before"


def remember(netlink: Netlink, bridge: str, known: str) -> str:
    """Writes down what the switches are, unless that was done; answers with the record.

    `known` is the record of an earlier call, for a bridge that somebody removed and that was made again.
    """
    alias = netlink.require(bridge).alias
    if alias.startswith(MARK):
        return alias
    record = known or " ".join((MARK, *(f"{name}={sysctl.read(name)}" for name, _ in WANTED)))
    netlink.pairs.name(bridge, record)
    return record


def put_back(netlink: Netlink, bridge: str) -> list[str]:
    """The switches as they were; answers with those that had another value."""
    link = netlink.link(bridge)
    if link is None or not link.alias.startswith(MARK):
        return []
    before = dict(word.split("=", 1) for word in link.alias.split()[1:] if "=" in word)
    known = [name for name, _ in WANTED if before.get(name, "").isdecimal()]
    return [f"{name}={before[name]}" for name in known if sysctl.write_if_present(name, before[name])]


class Localnet:
    """`route_localnet` of the bridge, by which portmap leads 127.0.0.1 to pods. It is for others to set and to take
    back, but it would go with a bridge that somebody deletes, and whoever set it does not come again for pods that run.
    """

    def __init__(self, bridge: str) -> None:
        self._name = f"net/ipv4/conf/{bridge}/route_localnet"
        self._index = 0
        self._value = ""

    def keep(self, index: int) -> list[str]:
        """A bridge of another `index` gets what the last had; answers with what that changed."""
        lost, self._index = self._value == "1" and index != self._index, index
        done = [f"{self._name}=1"] if lost and sysctl.write_if_present(self._name, 1) else []
        self.look()
        return done

    def look(self) -> None:
        """It may be set, or taken back, at any time."""
        self._value = sysctl.read(self._name) or self._value
