"""What this node knows of all others, and tells of itself: the records, put to use.

    a neighbour's words ──> gossip ──> what is new ─┬─ Node ──> names, endpoints
                                                    ├─ Links ──> topology
                                                    └─ Blocks ──> routes ──> the data plane

Law: a record that gossip calls new is applied once, in the order of arrival, and whatever it says of anybody but its
author means nothing. A node that cannot be reached for a day is forgotten with all it announced, unless a register gave
it blocks: they stay its own, and it is only forgotten where there is no room for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from ipaddress import IPv4Network
from typing import Final

from tunrouter.core import bounds, record, seam, wire
from tunrouter.core.gossip import Gossip, Say
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox, Own
from tunrouter.core.record import Block, BlocksBody, ClusterBody, Link, LinksBody, NodeBody, Read, Record, rtt_class
from tunrouter.core.routes import Announced, Owner, Routes, parse_blocks
from tunrouter.core.topology import Topology
from tunrouter.errors import ProtocolError

NEVER: Final = float("inf")
MAX_SEEN: Final = 4
"""Endpoints at which others see us, the newest ones."""


class Mesh:
    def __init__(self, local: Local, routes: Routes, out: Outbox, say: Say, read: Read = record.read) -> None:
        self.routes = routes
        self.topology = Topology(local.id)
        self.gossip = Gossip(local, out, say, 0.0, read)
        self.changed: set[int] = set()
        """Nodes of which something changed since the owner of this set emptied it."""
        self.clusters: dict[int, ClusterBody] = {}
        """What nodes said of their clusters since the owner of this emptied it."""
        self.refused: dict[int, str] = {}
        """Why the blocks of these nodes are not routed."""
        self._local = local
        self._out = out
        self._seen: dict[seam.Endpoint, None] = {}
        self._links: dict[int, float | None] = {}
        self._told: dict[int, int] = {}
        """Our links as they were told last, with their classes."""
        self._links_at = NEVER
        self._node_at = NEVER
        self._node_rest_until = 0.0
        self._sweep_at = NEVER
        self._weigh_at = 0.0
        self._unweighed = False
        """Links or blocks have changed since conflicts were looked at."""
        self._rest_until = 0.0
        self._gone_since: dict[int, float] = {}
        self.allows: Callable[[int, int, int], bool] = lambda node, place, version: True
        """Whether a node may have the block at that place, by a register of that version, where somebody knows."""
        self._not_leased: dict[int, set[int]] = {}
        """Who was refused a block, by its place."""
        self.outlived = 0
        """A life of ours that somebody has given up."""
        self._passed_on: dict[int, float] = {}
        """Until when a node is not told again that it was given up."""
        self._say = say

    def start(self, now: float) -> None:
        for message in self.routes.start():
            self._out.put(message)
        self._announce_node(now)
        self._node_rest_until = now  # where it is seen first is news at once
        self._announce_blocks(self.routes.own)
        if self.routes.own:
            self._out.put(Own(_networks(self.routes.own)))
        self._links_at, self._sweep_at = now, now + bounds.SWEEP_SECONDS

    def preload(self, records: Iterable[Record], quiet_until: float) -> None:
        """For simulations that begin in the middle: as if all these had come, and our links had been told so."""
        for known in records:
            self.gossip.replica.put(known)
            if known.node != self._local.id:
                self._apply(known)
        self._resume(quiet_until)

    def preload_like(self, other: Mesh, quiet_until: float) -> None:
        """The same, from another node that was preloaded with all records: what both know alike is shared."""
        self.gossip.replica.resume(other.gossip.replica)
        self.topology.resume(other.topology)
        self.routes.resume(other.routes)
        self._resume(quiet_until)

    def _resume(self, quiet_until: float) -> None:
        own = self.gossip.replica.get(self._local.id, record.LINKS)
        if own is not None and isinstance(own.body, LinksBody):
            self.gossip.recall(own)
            self._told = {link.node: link.rtt for link in own.body.links}
            self.topology.tell(own.node, own.body)
        self._rest_until = quiet_until

    # --- what we know ------------------------------------------------------------------------------------------------
    def knows(self, node: int) -> bool:
        return self.gossip.replica.knows(node)

    @property
    def nodes(self) -> tuple[int, ...]:
        """All others, ascending."""
        return tuple(node for node in self.gossip.replica.nodes if node != self._local.id)

    def node(self, node: int) -> NodeBody | None:
        body = self.gossip.replica.body(node, record.NODE)
        return body if isinstance(body, NodeBody) else None

    def endpoints(self, node: int) -> tuple[seam.Endpoint, ...]:
        """Where the node says it can be reached."""
        body = self.node(node)
        return body.endpoints if body is not None else ()

    def links(self, node: int) -> tuple[Link, ...]:
        """Whom the node says it is linked with."""
        body = self.gossip.replica.body(node, record.LINKS)
        return body.links if isinstance(body, LinksBody) else ()

    def foreign(self, introduction: wire.Introduction) -> str:
        """Why a peer with this introduction is not wanted; empty if it is."""
        try:
            body = record.read(introduction.blocks).body
        except ProtocolError:
            return ""  # counted where it is introduced
        cluster = body.cluster if isinstance(body, BlocksBody) else 0
        return self.strange(cluster) if self._local.cluster and cluster not in (0, self._local.cluster) else ""

    def strange(self, cluster: int) -> str:
        return f"belongs to cluster {_short(cluster)}, ours is {_short(self._local.cluster)}"

    def cluster(self, node: int) -> ClusterBody | None:
        """What the node says of the cluster it belongs to."""
        body = self.gossip.replica.body(node, record.CLUSTER)
        return body if isinstance(body, ClusterBody) else None

    def incarnation(self, node: int) -> int:
        """The newest of the node that is known."""
        return max((known.incarnation for known in self.gossip.replica.of(node)), default=0)

    @property
    def here(self) -> Set[int]:
        """All others that can be reached, over others or not."""
        return self.topology.ways().keys() | self._links.keys()

    @property
    def away(self) -> list[int]:
        """Others that are known and cannot be reached."""
        here = self.topology.reached() | self._links.keys()
        return [node for node in self.nodes if node not in here]

    @property
    def settling(self) -> bool:
        """A neighbour is there of whom others do not know yet that it is: what lies behind it may be reached soon."""
        return not self._links.keys() <= self.topology.reached()

    def owners(self) -> Mapping[int, Owner]:
        """Of all blocks that registers gave to nodes, ours included, by place in the range; read it, do not keep it."""
        return self.routes.owners()

    # --- what others say ---------------------------------------------------------------------------------------------
    def hear(self, node: int, body: wire.GossipBody, now: float) -> None:
        for news in self.gossip.hear(node, body, now):
            self._apply(news)
        for other, incarnation in self.gossip.outlived.items():
            self._on_outlived(other, incarnation, now)
        self.gossip.outlived.clear()

    def _on_outlived(self, node: int, incarnation: int, now: float) -> None:
        """Passed on from neighbour to neighbour until it reaches whom it is about."""
        if node == self._local.id:
            self.outlived = incarnation
        elif incarnation == self.incarnation(node) and self._passed_on.get(node, 0.0) <= now:
            way = self.topology.ways().get(node)
            if way is not None:
                self._passed_on[node] = now + bounds.OUTLIVED_SECONDS
                self._say(way.neighbour, wire.Outlived(node, incarnation))

    def introduce(self, node: int, introduction: wire.Introduction, now: float) -> None:
        """A peer whose identity is proved says this of itself, and where it sees us."""
        for news in self.gossip.own_word(node, introduction.blocks):
            self._apply(news)
        if introduction.seen is not None:
            self._seen_at(introduction.seen, now)

    def _apply(self, news: Record) -> None:
        self.changed.add(news.node)
        match news.body:
            case NodeBody():
                self._on_node(news.node, news.body)
            case LinksBody():
                self.topology.tell(news.node, news.body)
                self._unweighed = True
            case BlocksBody():
                self._on_blocks(news.node, news.body)
            case ClusterBody():
                self.clusters[news.node] = news.body

    def _on_node(self, node: int, body: NodeBody) -> None:
        if body.pod_mtu != self._local.pod_mtu:
            text = f"{body.name}: its pods have MTU {body.pod_mtu}, ours {self._local.pod_mtu}"
            self._out.log("warning", f"mtu {node}", text, peer=node)

    def _on_blocks(self, node: int, body: BlocksBody) -> None:
        try:
            blocks = self._read_blocks(node, body)
        except ProtocolError as error:
            blocks = ()
            self.refused[node] = f"{error}"
            self._out.count("blocks_refused")
            self._out.log("error", f"blocks {node}", f"{self.name_of(node)} {error}", peer=node, reason=str(error))
        else:
            self.refused.pop(node, None)
        self._route(self.routes.announce(node, blocks))
        self._unweighed = True
        self._tell_conflicts()

    def _read_blocks(self, node: int, body: BlocksBody) -> tuple[Announced, ...]:
        """Raises ProtocolError, which says why these are not routed."""
        ours, theirs = self._local.cluster, body.cluster
        if ours and theirs and ours != theirs:
            raise ProtocolError(f"belongs to cluster {_short(theirs)}, ours is {_short(ours)}")
        blocks = parse_blocks(body.blocks, self.routes.range, self._local.block_length)
        allowed = []
        for one in blocks:
            place = self._place(one)
            if self.allows(node, place, one.version):
                allowed.append(one)
            else:
                self._out.count("blocks_not_leased")
                self._not_leased.setdefault(place, set()).add(node)
        return tuple(allowed)

    def _place(self, announced: Announced) -> int:
        offset = int(announced.block.network_address) - int(self.routes.range.network_address)
        return offset >> (self.routes.range.max_prefixlen - self._local.block_length)

    def reconsider(self, place: int, nodes: Set[int]) -> None:
        """Somebody who knows who has that block says something else of it, and so of these nodes."""
        for node in (nodes | self._not_leased.pop(place, set())) - {self._local.id}:
            body = self.gossip.replica.body(node, record.BLOCKS)
            if isinstance(body, BlocksBody):
                self._on_blocks(node, body)

    def _weigh_conflicts(self, now: float) -> None:
        """Who claims the same as another, but is not there any more, has no use of it. Now and then: ways cost."""
        self._unweighed = False
        if contested := self.routes.contested:
            self._weigh_at = now + bounds.WEIGH_PAUSE_SECONDS
            here = self.topology.ways().keys() | self._links.keys() | {self._local.id}
            self._route(self.routes.away(contested - here))

    def _tell_conflicts(self) -> None:
        for block, loser, winner, static in self.routes.conflicts:
            text = f"{self.name_of(winner)} and {self.name_of(loser)} both announce {block}"
            if static:
                self._out.log("error", f"conflict {block}", f"{text}; give one of them another --block", peer=winner)
            else:
                self._out.log("warning", f"conflict {block}", f"{text}; its register will decide", peer=winner)

    def _route(self, messages: list[seam.ToWorker]) -> None:
        for message in messages:
            self._out.put(message)
        self.changed |= self.routes.changed

    def name_of(self, node: int) -> str:
        if node == self._local.id:
            return self._local.name
        body = self.node(node)
        return body.name if body is not None else f"{node:016x}"

    # --- what we say -------------------------------------------------------------------------------------------------
    def _seen_at(self, endpoint: seam.Endpoint, now: float) -> None:
        """A peer sees us there."""
        if endpoint in self._local.endpoints or next(reversed(self._seen), None) == endpoint:
            return
        self._seen.pop(endpoint, None)
        self._seen[endpoint] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self.say_node(now)

    def say_node(self, now: float) -> None:
        """Who we are and where, again: something of it has changed."""
        self._node_at = min(self._node_at, max(now, self._node_rest_until))

    def readdressed(self, endpoints: tuple[seam.Endpoint, ...], now: float) -> None:
        """What this node knows of where it is, from now on."""
        if endpoints != self._local.endpoints:
            self._local.endpoints = endpoints
            self._seen.clear()  # it is not there any more; where it is seen now peers will say
            self._node_at = min(self._node_at, now)

    def _announce_node(self, now: float) -> None:
        self._node_at, self._node_rest_until = NEVER, now + bounds.NODE_PAUSE_SECONDS
        local = self._local
        # In a fixed order: which of them was seen last is no news.
        endpoints = (*local.endpoints, *sorted(self._seen))[: bounds.MAX_ENDPOINTS]
        self.gossip.announce(NodeBody(local.name, local.pod_mtu, endpoints, local.uid))

    def own(self, blocks: tuple[Announced, ...]) -> None:
        """Exactly these blocks are ours from now on, the first with the pods' gateway.

        Raises ProtocolError, and changes nothing, for what others would not take.
        """
        self._announce_blocks(blocks)
        before = _networks(self.routes.own)
        self._route(self.routes.possess(blocks))
        if _networks(blocks) != before:
            self._out.put(Own(_networks(blocks)))
        self._unweighed = True
        self._tell_conflicts()

    def belong(self, cluster: int) -> None:
        """This node is of that cluster from now on: it says so, and looks again at what others announced."""
        self._local.cluster = cluster
        self._announce_blocks(self.routes.own)
        for node in self.nodes:
            body = self.gossip.replica.body(node, record.BLOCKS)
            if isinstance(body, BlocksBody):
                self._on_blocks(node, body)

    @property
    def usurper(self) -> int:
        """The newest incarnation in which another node signs with our key; 0 if none does."""
        return self.gossip.usurper

    def say_again(self) -> None:
        """All that we told, in the incarnation that we have now."""
        self.gossip.say_again()
        own = self.gossip.replica.get(self._local.id, record.BLOCKS)
        if own is not None:
            self._local.blocks_record = own.data

    def say_cluster(self, body: ClusterBody) -> None:
        if body.cluster != self._local.cluster:
            self.belong(body.cluster)
        self.gossip.announce(body)

    def _announce_blocks(self, blocks: tuple[Announced, ...]) -> None:
        told = tuple(Block(str(block), version) for block, version in blocks)
        parse_blocks(told, self.routes.range, self._local.block_length)
        own = self.gossip.announce(BlocksBody(told, self._local.cluster))
        if own is not None:
            self._local.blocks_record = own.data

    def link(self, links: Mapping[int, float | None], now: float, missed: Set[int] = frozenset()) -> None:
        """These are our neighbours now, with the round trip in seconds, None while it is not known.

        Where there is no room to tell of all, the first are told, and those that were told before. One that was
        `missed` is news at once: perhaps a partition is over.
        """
        for node in self._links.keys() - links.keys():
            self.gossip.down(node)
        for node in links.keys() - self._links.keys():
            self.gossip.up(node, now)
        if self._told.keys() - links.keys():
            self._links_at = min(self._links_at, max(now, self._rest_until))
        elif new := links.keys() - self._told.keys() - self._links.keys():
            patience = bounds.LINKS_SETTLE_SECONDS if new.isdisjoint(missed) else 0.0
            self._links_at = min(self._links_at, max(now + patience, self._rest_until))
        self._links = dict(links)

    def _tell_links(self, now: float) -> None:
        told = {
            node: rtt_class(rtt, self._told.get(node)) if rtt is not None else self._told.get(node, 0)
            for node, rtt in sorted(self._most_important_links())
        }
        body = LinksBody(tuple(Link(node, rtt) for node, rtt in told.items()))
        self._rest_until = now + bounds.LINKS_PAUSE_SECONDS
        self._links_at = now + self._local.jitter(bounds.RTT_TOLD_SECONDS, bounds.RETRY_JITTER)
        self._told = told
        if self.gossip.announce(body) is not None:
            self.topology.tell(self._local.id, body)
            self._unweighed = True

    def _most_important_links(self) -> list[tuple[int, float | None]]:
        """As many as one record holds: half of the room is for the first, whoever else comes."""
        links = list(self._links.items())
        first, others = links[: bounds.MAX_LINKS // 2], links[bounds.MAX_LINKS // 2 :]
        others.sort(key=lambda link: link[0] not in self._told)
        return (first + others)[: bounds.MAX_LINKS]

    # --- what is due -------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> float:
        weigh_at = self._weigh_at if self._unweighed else NEVER
        return min(self._node_at, self._links_at, self._sweep_at, weigh_at, self.gossip.deadline)

    def tick(self, now: float) -> None:
        if now >= self._node_at:
            self._announce_node(now)
        if now >= self._links_at:
            self._tell_links(now)
        if now >= self._sweep_at:
            self._sweep_at = now + bounds.SWEEP_SECONDS
            self._sweep(now)
        if self._unweighed and now >= self._weigh_at:
            self._weigh_conflicts(now)
        self.gossip.tick(now)

    def _sweep(self, now: float) -> None:
        """Forgets who has been gone for a day; when there is no room, who has been gone longest."""
        gone = self.away
        self._gone_since = {node: self._gone_since.get(node, now) for node in gone}
        registered = {node for node in gone if self.routes.registered(node)}
        gone.sort(key=lambda node: (node in registered, self._gone_since[node]))
        for node in gone:
            late = now - self._gone_since[node] >= bounds.FORGET_SECONDS and node not in registered
            if late or self.gossip.replica.full:
                self._forget(node)
        self._unweighed = True

    def bury(self, node: int) -> None:
        """It was removed: as if it had never been, until it comes with a newer life."""
        self._forget(node)
        self._unweighed = True

    def _forget(self, node: int) -> None:
        self._out.count("nodes_forgotten")
        self.gossip.replica.erase(node)
        self.topology.forget(node)
        self._route(self.routes.withdraw(node))
        self.changed.add(node)
        self.refused.pop(node, None)
        self._gone_since.pop(node, None)
        self._passed_on.pop(node, None)


def _networks(blocks: tuple[Announced, ...]) -> tuple[IPv4Network, ...]:
    return tuple(announced.block for announced in blocks)


def _short(cluster: int) -> str:
    """Enough of a cluster's id to tell it from others."""
    return f"{cluster:016x}"[:8]
