"""Every counter of the snapshot: what it counts, and which metric shows it.

Law: each is in one of the sets below, and a test finds those that are not; so no label ever has a value that is not
written here. `BOUNDS` is a second view: what was dropped, refused or given up because a limit was hit. docs/metrics.md
has the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

DROPPED: Final = {
    "drop_expired": "it came for keys that are too old, or would have been sealed with such",
    "drop_held_full": "too many waited for the proof of their sender's identity",
    "drop_inner_destination": "a peer sent what is for no address of this node",
    "drop_inner_source": "a peer sent what is not from its own addresses",
    "drop_kind": "a peer sent a kind of datagram that this version does not know",
    "drop_malformed": "no packet that this version can read",
    "drop_no_route": "nobody has that address, or this node itself",
    "drop_no_socket": "the peer is reached by IPv4 or IPv6, and this node has no such socket",
    "drop_path_mtu": "the kernel said that the datagram is too large for the path",
    "drop_queue_full": "too many waited for a session with that node",
    "drop_replay": "the datagram has come before",
    "drop_send_buffer": "the socket's buffer was full",
    "drop_tag": "forged or damaged: the seal is wrong",
    "drop_too_big": "larger than the path takes; the pod was told so by ICMP",
    "drop_tun_write": "the TUN device did not take it",
    "drop_unknown_index": "sealed with keys that this node does not have, or not any more",
    "drop_unreachable": "the kernel has no way to the peer's address",
    "relay_hop_limit": "relayed too often already",
    "relay_malformed": "no relayed datagram that this version can read",
    "relay_no_route": "this node knows no way on",
    "relay_too_big": "too large for the relay",
}
"""Packets and datagrams."""

RELAYED: Final = {
    "relay_delivered": "for this node, come from a relay",
    "relay_forwarded": "passed on for others",
    "relay_sent": "of this node, given to a relay",
}
"""Datagrams."""

REFUSED: Final = {
    "answer_over_budget": "answers: more than are looked at in a second",
    "answer_source_rate": "answers: more than one source may send",
    "carried_over_budget": "inside one session: more than are looked at in a second",
    "foreign_cluster": "the peer belongs to another cluster",
    "half_open_expired": "never confirmed by who began it",
    "half_open_full": "too many under way",
    "handshake_bad_answer": "an answer that does not fit its question",
    "handshake_malformed": "no handshake that this version can read",
    "handshake_mismatch": "another password, or only one side has one",
    "handshake_over_budget": "first messages: more than are looked at in a second",
    "handshake_pipe_full": "more than control could read",
    "handshake_queue_full": "more than one wakeup takes",
    "handshake_refused": "old, reflected or meant for another node",
    "handshake_source_rate": "first messages: more than one source may send",
    "handshake_unexpected": "an answer to nothing that was asked",
    "handshake_version": "the peer speaks no version of the protocol that this node speaks",
    "identity_cloned": "another machine has this node's identity",
    "identity_failed": "who began it could not prove to be who he said",
}
"""Handshakes that came to nothing."""

FAULTS: Final = {
    "bench_refused": "a peer was not let measure the path",
    "bench_strangers": "somebody without a token spoke to a responder",
    "bench_unasked": "an answer to a measurement that nobody asked for",
    "blocks_lost": "a block is another node's now",
    "blocks_refused": "a node announced blocks that cannot be routed",
    "blocks_not_leased": "a node announced a block whose Lease names another one",
    "control_before_identity": "control spoke before its identity was proved",
    "control_errors": "a step of control failed and was given up: a defect, see the log",
    "control_malformed": "a control message that this version cannot read",
    "control_rate": "control messages of one session: more than are read in a second",
    "control_unknown": "a control message of a kind that only a later version has",
    "dials_full": "too many addresses are tried at once",
    "effects_lost": "control wanted more done at once than it may",
    "gossip_author_over_budget": "records of one author: more than are taken in a second",
    "gossip_buried": "a record of a node that was removed",
    "gossip_forged": "a record whose signature is wrong",
    "gossip_full": "a record of a node for which there is no room",
    "gossip_malformed": "a record that this version cannot read",
    "gossip_of_no_neighbour": "gossip of a node that is no neighbour, or not yet",
    "gossip_over_budget": "records of one neighbour: more than are looked at in a second",
    "gossip_own_from_elsewhere": "a record of this node that it does not know: of a forgotten life, or of a clone",
    "gossip_retried": "a message was sent again because nobody acknowledged it",
    "gso_fallback": "the kernel did not take many datagrams at once, so each was sent alone",
    "icmp_limited": "a pod was not told that its packet is too big, because too many were",
    "lanes_full": "no room for a peer's lanes",
    "peers_full": "no room for a peer",
    "receive_errors": "a socket could not be read",
    "register_malformed": "a question about registers that this version cannot read",
    "register_over_budget": "questions about registers: more of one node than are answered in a second",
    "seam_full": "a worker could not tell control something",
    "seam_malformed": "a worker was told what it cannot read: a defect",
    "seam_refused": "a worker had no room for keys or routes, or had them already",
    "starved": "control was held up for more than half a second",
    "targets_full": "no room for a target",
    "tun_read_errors": "the TUN device could not be read",
    "wanted_unknown": "packets waited for a node that control does not know",
    "worker_errors": "a batch of packets failed and was given up: a defect, see the log",
    "worker_malformed": "a worker said what control cannot read: a defect",
    "worker_missing": "no worker was there to send what control said",
    "worker_pipe_full": "control could not tell a worker something",
}
"""All else that should not happen, or only now and then."""

EVENTS: Final = {
    "bench_started": "a peer began to measure the path",
    "nodes_forgotten": "a node was away for a day, removed, or gave way to another",
    "nodes_removed": "a node was removed on the word of another one",
}
"""What happens in an ordinary life."""

SINGLE: Final = {
    "datagrams_out": "tunrouter_tx_datagrams_total",
    "frames_in": "tunrouter_rx_frames_total",
    "rekeys": "tunrouter_rekeys_total",
    "sessions_ended": "weave_connection_terminations_total",
    "sessions_opened": "tunrouter_sessions_opened_total",
    "worker_restarts": "tunrouter_worker_restarts_total",
}
"""Counters with a metric of their own."""

BOUNDS: Final = (
    "answer_over_budget",
    "answer_source_rate",
    "carried_over_budget",
    "control_rate",
    "dials_full",
    "drop_held_full",
    "drop_queue_full",
    "effects_lost",
    "gossip_author_over_budget",
    "gossip_full",
    "gossip_over_budget",
    "half_open_full",
    "handshake_over_budget",
    "handshake_pipe_full",
    "handshake_queue_full",
    "handshake_source_rate",
    "icmp_limited",
    "lanes_full",
    "peers_full",
    "register_over_budget",
    "relay_hop_limit",
    "seam_full",
    "seam_refused",
    "targets_full",
    "worker_pipe_full",
)
"""Of the above, those that say that a limit was hit (`core/bounds.py`)."""


def values(names: Iterable[str], counters: Mapping[str, int], prefix: str) -> Iterator[tuple[tuple[str], int]]:
    """Each name without `prefix`, and how often; also where that was never."""
    for name in names:
        yield (name.removeprefix(prefix),), counters.get(name, 0)
