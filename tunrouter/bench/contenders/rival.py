"""A rival: two sites joined by something that is not tunrouter, opened and closed as one.

Law: a rival gets what its manual recommends and nothing that slows it down: no packet filter, no connection tracking,
and a pod MTU that fits its tunnel, so that nothing is fragmented. What it needs is fetched before anything is set up,
so a rival that cannot be had costs nothing but its reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Self

from tunrouter.bench.contender import End
from tunrouter.bench.contenders.site import START_SECONDS, Site
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until


class Rival(ABC):
    """A context, to be left before its lab."""

    name: ClassVar[str]
    version: str

    def __init__(self, lab: Lab, hosts: tuple[Host, Host]) -> None:
        self.lab = lab
        self.hosts = hosts
        self.sites: list[Site] = []

    @abstractmethod
    def obtain(self) -> str:
        """Gets what is needed, from the cache or the network; the version."""

    @abstractmethod
    def mtu(self, underlay: int) -> int:
        """Of the pods."""

    def prepare(self, site: Site) -> None:  # noqa: B027  (not every rival needs it)
        """The first half of a site: keys, or a process that makes its own; the other site may not be there yet."""

    @abstractmethod
    def join(self, here: Site, there: Site) -> None:
        """The second half, when both sites are prepared."""

    def __enter__(self) -> Self:
        try:
            self.version = self.obtain()
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def _open(self) -> None:
        for host in self.hosts:
            self.sites.append(Site(host, self.name))
            self.prepare(self.sites[-1])
        one, two = self.sites
        for here, there in ((one, two), (two, one)):
            here.attach(self.mtu(self.lab.fabric.mtu))
            self.join(here, there)
        wait_until(f"a ping through {self.name}", lambda: one.pod.ping(two.pod.address, seconds=1), START_SECONDS)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for site in self.sites:
            site.stop()

    @property
    def ends(self) -> tuple[End, End]:
        one, two = (End(site.pod.namespace, site.pod.address) for site in self.sites)
        return one, two

    def lose(self, percent: float) -> None:
        self.lab.fabric.lose(percent)

    def cpu_seconds(self) -> float | None:
        return total(site.cpu_seconds() for site in self.sites)

    def resident_mib(self) -> float | None:
        return total(site.resident_mib() for site in self.sites)


def total(parts: Iterable[float | None]) -> float | None:
    """None if any part is."""
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)
