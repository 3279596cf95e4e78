"""Finds the chains of others that would drop our traffic, and lets it through where that can be done.

Law: an accept in our own table cannot undo a drop in another base chain, so this is the one place where rules of others
are touched: accepts tagged `tunrouter` in DOCKER-USER where Docker has one, else at the head of iptables' FORWARD and
INPUT, in each backend that drops; firewalld is asked to trust our devices. Nothing is added where nothing would be
dropped, what was added is verified by looking again, and native nftables chains are only reported.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from tunrouter.edge.firewall import firewalld, iptables, legacy, nftables
from tunrouter.edge.firewall.rules import Chain, Flow, verdict
from tunrouter.errors import HostError

DOCKER_USER: Final = "DOCKER-USER"
UFW_USER: Final = "ufw-user-input"
"""A chain of what its users asked ufw for."""
OUTSIDE: Final = "the outside"
FIREWALLD_TABLE: Final = "inet firewalld"


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """One base chain that would drop some of our traffic."""

    backend: str
    """`iptables-nft`, `iptables-legacy`, `ip6tables-…`, or `nft` for a native chain."""
    table: str
    chain: str
    hook: str
    traffic: str
    """The first kind of ours that it drops."""
    why: str
    fix: str
    """What a person can do, where we may not or cannot."""

    @property
    def name(self) -> str:
        return f"{self.backend} {self.table} {self.chain}"

    def __str__(self) -> str:
        return f"{self.name} would drop {self.traffic} ({self.why})"


class Firewall:
    """`bridge` and `tun` are our devices, `network` the range, `port` the tunnel's UDP port."""

    def __init__(
        self, *, bridge: str, tun: str, network: ipaddress.IPv4Network, port: int, manage: bool = True
    ) -> None:
        self.bridge = bridge
        self.tun = tun
        self.network = network
        self.port = port
        self.manage = manage
        self.drops: list[Drop] = []
        """What the last look found that is still dropped."""
        self.unread: list[str] = []
        """What the last look could not read."""
        self.refused: list[str] = []
        """Accepts that could not be made."""
        self._seen: tuple[bytes, bytes] | None = None
        self._unwatched: list[str] = []
        """Why legacy tables cannot be watched."""

    def legacy_changed(self) -> bool:
        """Whether a legacy table differs from the last look. Nothing announces those; this costs no fork."""
        try:
            now = (legacy.fingerprint(4), legacy.fingerprint(6))
        except HostError as error:
            self._unwatched = [str(error)]
            return False
        self._unwatched = []
        changed, self._seen = now != self._seen, now
        return changed

    def inspect(self, uplinks: Sequence[str] = ()) -> list[Drop]:
        """Every chain that would drop our traffic now, our accepts counted in."""
        overview, found = nftables.Overview(), []
        looks: list[tuple[str, Callable[[], list[Drop]]]] = [
            (backend, partial(self._iptables_drops, backend, uplinks)) for backend in _backends(overview)
        ]
        looks += [(f"nft {f} {t}", partial(self._nft_drops, f, t, uplinks)) for f, t in overview.foreign]
        self.unread = []
        for name, look in looks:
            try:
                found += look()
            except HostError as error:
                self.unread.append(f"{name} cannot be looked at: {error}")
        return found

    def ensure(self, uplinks: Sequence[str] = ()) -> list[str]:
        """Lets our traffic through where it would be dropped; what was done comes back. Only looks unless `manage`."""
        self.legacy_changed()
        self.drops = self.inspect(uplinks)
        self.refused = []
        if not self.manage or not self.drops:
            return []
        done = self._accept_all(uplinks)
        if any(DOCKER_USER in line for line in done) and self.drops:
            # A DOCKER-USER that FORWARD no longer jumps to helps nobody.
            done += self._accept_all(uplinks, self._at_head)
        return done

    def complaints(self) -> list[str]:
        """What the last `ensure` could not set right, each in one line."""
        return [*map(str, self.drops), *self.refused, *self.unread, *self._unwatched]

    def _accept_all(self, uplinks: Sequence[str], accept: Callable[[Drop], list[str]] | None = None) -> list[str]:
        done = []
        for drop in self.drops:
            try:
                done += accept(drop) if accept else self._accept(drop, uplinks)
            except HostError as error:  # one firewall that refuses does not stop the rest
                self.refused.append(str(error))
        if done:
            self.drops = self.inspect(uplinks)
        return done

    def remove(self) -> list[str]:
        """Takes every accept of ours away, in whatever backend it stands."""
        done = []
        for backend in _backends(nftables.Overview()):
            done += iptables.Filter(backend).remove()
        if firewalld.running():
            done += firewalld.remove([self.bridge, self.tun], self.port)
        self.legacy_changed()
        return done

    def _accept(self, drop: Drop, uplinks: Sequence[str]) -> list[str]:
        if drop.backend == "nft":
            return self._ask_firewalld(drop, uplinks) if drop.table == FIREWALLD_TABLE else []
        table = iptables.Filter(drop.backend)
        if drop.hook == "forward" and DOCKER_USER in table.chains:
            table.accept(DOCKER_USER, self._matches(drop.hook))
            return [f"accepts in {drop.backend} {DOCKER_USER}"]
        return self._at_head(drop)

    def _ask_firewalld(self, drop: Drop, uplinks: Sequence[str]) -> list[str]:
        if not firewalld.running():
            return []
        if drop.hook == "forward":
            return firewalld.trust([self.bridge, self.tun])
        return firewalld.open_port(self.port, list(uplinks))

    def _at_head(self, drop: Drop) -> list[str]:
        if drop.backend == "nft":
            return []
        iptables.Filter(drop.backend).accept(drop.chain, self._matches(drop.hook))
        return [f"accepts in {drop.backend} {drop.chain}"]

    def _matches(self, hook: str) -> list[list[str]]:
        if hook == "input":
            return [["-p", "udp", "-m", "udp", "--dport", str(self.port)]]
        return [[side, name] for name in (self.bridge, self.tun) for side in ("-i", "-o")]

    def _iptables_drops(self, backend: str, uplinks: Sequence[str]) -> list[Drop]:
        table, found = iptables.Filter(backend), []
        for drop in self._drops(table.chains, uplinks, (table.version,)):
            fix = "; ".join(self._accepting(table, drop)) + "; else start without --no-host-firewall"
            found.append(msgspec.structs.replace(drop, backend=backend, table="filter", fix=fix))
        return found

    def _accepting(self, table: iptables.Filter, drop: Drop) -> list[str]:
        """Commands with which a person lets our traffic through, in the words of whoever drops it."""
        forward = drop.hook == "forward"
        if UFW_USER in table.chains:
            devices = [
                f"ufw route allow {side} on {name}" for name in (self.bridge, self.tun) for side in ("in", "out")
            ]
            return devices if forward else [f"ufw allow {self.port}/udp"]
        by_docker = forward and any(rule.target == DOCKER_USER for rule in table.chains[drop.chain].rules)
        chain = DOCKER_USER if by_docker else drop.chain
        return [f"{table.backend} -I {chain} {shlex.join(match)} -j ACCEPT" for match in self._matches(drop.hook)]

    def _accepting_natively(self, family: str, table: str, drop: Drop) -> Iterator[str]:
        """The same, and how that is made to last."""
        forward, devices = drop.hook == "forward", [self.bridge, self.tun]
        if f"{family} {table}" == FIREWALLD_TABLE:
            yield from firewalld.accepting(drop.hook, devices, self.port, from_outside=OUTSIDE in drop.traffic)
            return
        ours = f"{{ {', '.join(devices)} }}"
        for match in [f"iifname {ours}", f"oifname {ours}"] if forward else [f"udp dport {self.port}"]:
            yield f"nft insert rule {family} {table} {drop.chain} {shlex.quote(match + ' accept')}"
        yield "to keep it, the same in its own files"

    def _nft_drops(self, family: str, table: str, uplinks: Sequence[str]) -> list[Drop]:
        found = []
        versions = {"ip": (4,), "ip6": (6,)}.get(family, (4, 6))
        for drop in self._drops(nftables.read(family, table), uplinks, versions):
            fix = "; ".join(self._accepting_natively(family, table, drop))
            found.append(msgspec.structs.replace(drop, backend="nft", table=f"{family} {table}", fix=fix))
        return found

    def _drops(self, chains: Mapping[str, Chain], uplinks: Sequence[str], versions: tuple[int, ...]) -> Iterator[Drop]:
        for name, chain in chains.items():
            for label, flow in self._flows(uplinks):
                if flow.hook != chain.hook or flow.version not in versions:
                    continue
                decided, why = verdict(chains, name, flow)
                if decided == "drop":
                    yield Drop(backend="", table="", chain=name, hook=flow.hook, traffic=label, why=why, fix="")
                    break

    def _flows(self, uplinks: Sequence[str]) -> Iterator[tuple[str, Flow]]:
        """All that must pass. Pods have no IPv6 yet, so only the tunnel itself is looked at there."""
        for outside in uplinks or ("",):
            for version in (4, 6):
                yield (
                    f"UDP {self.port} from peers",
                    Flow(
                        hook="input",
                        input=outside,
                        protocol="udp",
                        port=self.port,
                        state="untracked",
                        version=version,
                    ),
                )
            yield from self._forwarded(outside)

    def _forwarded(self, outside: str) -> Iterator[tuple[str, Flow]]:
        pods = self.network
        yield (
            "pods to the tunnel",
            Flow(hook="forward", input=self.bridge, output=self.tun, source=pods, destination=pods),
        )
        yield (
            "the tunnel to pods",
            Flow(hook="forward", input=self.tun, output=self.bridge, source=pods, destination=pods),
        )
        yield "pods to pods", Flow(hook="forward", input=self.bridge, output=self.bridge, source=pods, destination=pods)
        yield "pods to the outside", Flow(hook="forward", input=self.bridge, output=outside, source=pods)
        yield f"{OUTSIDE} to pods", Flow(hook="forward", input=outside, output=self.bridge, destination=pods)
        yield f"{OUTSIDE} to the tunnel", Flow(hook="forward", input=outside, output=self.tun, destination=pods)


def _backends(overview: nftables.Overview) -> list[str]:
    """iptables' commands for the tables that exist."""
    found = [name for name, family in (("iptables-nft", "ip"), ("ip6tables-nft", "ip6")) if family in overview.iptables]
    found += [name for name, version in (("iptables-legacy", 4), ("ip6tables-legacy", 6)) if legacy.loaded(version)]
    return found
