"""What counts as an answer to a first message of ours, and when the next message leaves."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from itertools import pairwise

import pytest

from tunrouter.core import bounds, keys, seam, status, versions, wire
from tunrouter.core.dial import ATTEMPT_SECONDS, Dials, Opened, text
from tunrouter.core.handshake import INITIATOR_SIGNS, RESPONDER_SIGNS
from tunrouter.core.local import Local
from tunrouter.core.outbox import Outbox
from tunrouter.core.routes import Announced

THERE = ("192.0.2.2", 6783)
ELSEWHERE = ("192.0.2.3", 6783)
START = 100.0


def local(seed: int, workers: int = 1) -> Local:
    drawn = iter(range(1, 1 << 30))
    return Local(
        identity=keys.Identity(bytes([seed]) * 32),
        incarnation=7,
        ring=keys.KeyRing((bytes(32),)),
        network="weave",
        name=f"node {seed}",
        blocks=(Announced(IPv4Network(f"10.32.{seed}.0/24")),),
        block_length=24,
        pod_mtu=1376,
        random=lambda size: (seed << 40 | next(drawn)).to_bytes(max(size, 8), "big")[-size:],
        workers=workers,
    )


class Caller:
    """A node that dials, and what it sent."""

    def __init__(self, workers: int = 1) -> None:
        self.local = local(1, workers)
        self.out = Outbox()
        self.inside: list[bytes] = []
        self.carries = False
        self.replaces = 0
        self.dials = Dials(self.local, self.out, self._carry, lambda node: self.replaces)

    def _carry(self, endpoint: seam.Endpoint, datagram: bytes) -> bool:
        if self.carries:
            self.inside.append(datagram)
        return self.carries

    def tick(self, now: float = START) -> list[bytes]:
        """The first messages that leave at `now`."""
        self.dials.tick(now)
        return [effect.datagram for effect in self.out.take() if isinstance(effect, seam.SendRaw)]

    def schedule(self, seconds: float) -> list[tuple[float, bytes]]:
        """What leaves when, each at its deadline, for so long."""
        sent, now = [], START
        while now < START + seconds:
            sent += [(now, datagram) for datagram in self.tick(now)]
            assert self.dials.deadline > now
            now = self.dials.deadline
        return sent


@pytest.fixture
def caller() -> Caller:
    made = Caller()
    made.dials.start(THERE, START)
    return made


def answered(
    first: bytes, who: Local, outer: bytes | None = None, label: bytes = RESPONDER_SIGNS, **lies: object
) -> bytes:
    """The answer of `who`, true but for what `lies` say of its payload."""
    received = who.suites[0].read_first(first[wire.HEADER_BYTES :])
    asked = wire.decode_first(received.payload)
    answer = received.answer(bytes(range(32)))
    _, mode, _, index, attempt = wire.HEADER.unpack(asked.header)
    header = wire.HEADER.pack(wire.ANSWER, mode, 0, index, attempt)
    true = wire.Answer(
        header=header,
        version=versions.NEWEST,
        sender=who.id,
        target=asked.sender,
        incarnation=who.incarnation,
        base=4711 * 128,
        workers=who.workers,
        public_key=who.identity.public_key,
        signature=who.identity.sign(label + answer.hash),
        introduction=who.introduction(keep=False, seen=THERE),
    )
    payload = true._replace(**lies)  # type: ignore[arg-type]
    return (outer or header) + answer.finish(wire.encode_answer(payload))


# --- what counts -----------------------------------------------------------------------------------------------------
def test_a_true_answer_opens() -> None:
    caller, peer = Caller(workers=2), local(2, workers=3)
    caller.dials.start(THERE, START, keep=True)
    (first,) = caller.tick()
    opened = caller.dials.on_answer(answered(first, peer), START + 0.03)
    assert opened is not None
    assert (opened.node, opened.initiator, opened.incarnation) == (peer.id, True, 7)
    assert (opened.endpoint, opened.remote, len(opened.lanes)) == (THERE, 4711 * 128, 3)
    assert opened.base == wire.HEADER.unpack_from(first)[3]
    assert opened.rtt == pytest.approx(0.03)
    assert opened.introduction.name == "node 2"
    confirm = wire.decode_control(opened.confirm)
    assert isinstance(confirm, wire.Confirm)
    assert confirm.introduction.keep
    assert caller.dials.get(THERE) is None
    assert caller.dials.on_answer(answered(first, peer), START + 1) is None, "an answer counts once"


LIES: dict[str, Callable[[], dict[str, object]]] = {
    "flags outside the box": lambda: {"outer": 1},
    "reserved bytes outside the box": lambda: {"outer": 3},
    "another header inside": lambda: {"header": bytes(16)},
    "another version": lambda: {"version": versions.NEWEST + 1},
    "a version that is too old": lambda: {"version": versions.OLDEST - 1},
    "meant for another node": lambda: {"target": 12345},
    "another's id": lambda: {"sender": local(9).id},
    "another's id and key": lambda: {"sender": local(9).id, "public_key": local(9).identity.public_key},
    "a signature of nothing": lambda: {"signature": bytes(64)},
    "the initiator's label": lambda: {"label": INITIATOR_SIGNS},
    "no worker": lambda: {"workers": 0},
    "too many workers": lambda: {"workers": bounds.MAX_WORKERS + 1},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_with_one_lie_counts_nothing_and_the_true_one_is_still_read(caller: Caller, lie: str) -> None:
    (first,) = caller.tick()
    peer, lies = local(2), LIES[lie]()
    true = answered(first, peer)
    if "outer" in lies:
        changed = bytearray(true[: wire.HEADER_BYTES])
        changed[int(str(lies["outer"]))] ^= 1
        lies["outer"] = bytes(changed)
    assert caller.dials.on_answer(answered(first, peer, **lies), START) is None  # type: ignore[arg-type]
    assert caller.out.counters == {"handshake_bad_answer": 1}
    assert caller.dials.on_answer(true, START) is not None


def test_an_answer_to_another_message_counts_nothing(caller: Caller) -> None:
    (first,) = caller.tick()
    true = answered(first, local(2))
    for at in range(4, 16):
        changed = bytearray(true)
        changed[at] ^= 1
        assert caller.dials.on_answer(bytes(changed), START) is None
    assert caller.out.counters == {"handshake_unexpected": 12}
    assert caller.dials.on_answer(true, START) is not None


def test_who_is_dialled_by_name_must_be_the_one_that_answers(caller: Caller) -> None:
    caller.dials.start(ELSEWHERE, START, target=local(3).id)
    sent = [effect for effect in (caller.dials.tick(START), caller.out.take())[1] if isinstance(effect, seam.SendRaw)]
    first = next(effect.datagram for effect in sent if effect.endpoint == ELSEWHERE)
    received = local(3).suites[0].read_first(first[wire.HEADER_BYTES :])
    assert wire.decode_first(received.payload).target == local(3).id
    assert caller.dials.on_answer(answered(first, local(2)), START) is None
    assert caller.dials.on_answer(answered(first, local(3)), START) is not None


def test_an_answer_to_a_message_that_was_replaced_counts_nothing(caller: Caller) -> None:
    (old,) = caller.tick()
    (new,) = caller.tick(START + bounds.HALF_OPEN_SECONDS)
    assert new != old
    assert caller.dials.on_answer(answered(old, local(2)), START + 6) is None
    assert caller.dials.on_answer(answered(new, local(2)), START + 6) is not None


def test_an_answer_that_opens_nothing_is_no_answer(caller: Caller) -> None:
    (first,) = caller.tick()
    true = answered(first, local(2))
    for size in range(wire.HEADER_BYTES, len(true)):
        assert caller.dials.on_answer(true[:size], START) is None
    assert caller.dials.on_answer(true, START) is not None


# --- when the next one leaves ----------------------------------------------------------------------------------------
def test_one_message_is_repeated_with_growing_pauses_until_it_is_five_seconds_old(caller: Caller) -> None:
    sent = caller.schedule(120)
    pauses = [later[0] - sooner[0] for sooner, later in pairwise(sent)]
    for number, pause in enumerate(pauses):
        wanted = bounds.RETRY_SECONDS[min(number, len(bounds.RETRY_SECONDS) - 1)]
        assert abs(pause - wanted) <= wanted * bounds.RETRY_JITTER + 1e-9
    made: dict[bytes, float] = {}
    for at, datagram in sent:
        assert at - made.setdefault(datagram, at) < bounds.HALF_OPEN_SECONDS
    assert len(made) > 10
    assert len({datagram[4:8] for datagram in made}) == len(made), "each message has an index of its own"
    sequences = [wire.decode_first(local(2).suites[0].read_first(d[16:]).payload).sequence for d in made]
    assert sequences == list(range(1, len(made) + 1))


def test_no_answer_is_said_after_the_second_repetition_and_a_mismatch_stays(caller: Caller) -> None:
    reasons = []
    dial = caller.dials.get(THERE)
    assert dial is not None
    for _ in range(3):
        caller.tick(dial.next_at)
        reasons.append(dial.reason)
    assert reasons == ["", "", "no answer"]
    dial.rejected(wire.TAG_FAILED)
    caller.tick(dial.next_at)
    assert (dial.reason, dial.mismatch) == ("wrong password", True)


def test_a_mismatch_is_shown_until_a_whole_message_later_got_no_reject(caller: Caller) -> None:
    dial = caller.dials.get(THERE)
    assert dial is not None

    def attempt() -> set[str]:
        """The next message; what is shown while it is the current one."""
        base, shown = dial.base, set()
        while dial.base == base:
            caller.tick(dial.next_at)
        base = dial.base
        while dial.next_at < dial._made_at + ATTEMPT_SECONDS:
            shown.add(dial.reason)
            caller.tick(dial.next_at)
        return shown | {dial.reason}

    for _ in range(2):
        attempt()
        dial.rejected(wire.TAG_FAILED)
        assert attempt() == {"wrong password"}
        dial.rejected(wire.TAG_FAILED)
        dial.ask_for_anybody(dial.next_at)
        assert attempt() == {"wrong password"}
        assert attempt() == {"no answer"}
    assert (dial.fault, dial.mismatch) == (status.SILENT, False)


def test_a_dial_ends_in_its_time_and_one_that_is_prolonged_later() -> None:
    caller = Caller()
    caller.dials.start(THERE, START, seconds=10)
    caller.dials.start(ELSEWHERE, START, seconds=10)
    caller.dials.start(ELSEWHERE, START + 5, seconds=10)
    caller.dials.start(ELSEWHERE, START + 6, seconds=1)
    ended: list[tuple[float, seam.Endpoint]] = []
    now = START
    while now < START + 20:
        ended += [(now, endpoint) for endpoint in caller.dials.tick(now)]
        now = caller.dials.deadline
    assert ended == [(START + 10, THERE), (START + 15, ELSEWHERE)]
    assert caller.dials.deadline == float("inf")


def test_an_endpoint_is_dialled_once_and_for_anybody_when_two_want_different_nodes_there() -> None:
    caller = Caller()
    caller.dials.start(THERE, START, target=3)
    caller.tick()
    caller.dials.start(THERE, START, target=3)
    assert caller.tick() == []
    caller.dials.start(THERE, START, target=4)
    (first,) = caller.tick()
    assert wire.decode_first(local(2).suites[0].read_first(first[16:]).payload).target == 0
    caller.dials.start(THERE, START, target=5)
    assert caller.tick() == [], "anybody is anybody"
    assert len(caller.dials.all()) == 1


def test_keep_is_said_once_anybody_wants_it() -> None:
    caller = Caller()
    caller.dials.start(THERE, START, keep=True)
    caller.dials.start(THERE, START)
    (first,) = caller.tick()
    opened = caller.dials.on_answer(answered(first, local(2)), START)
    assert isinstance(opened, Opened)
    confirm = wire.decode_control(opened.confirm)
    assert isinstance(confirm, wire.Confirm)
    assert confirm.introduction.keep


def test_the_peer_hears_which_keys_the_new_ones_replace(caller: Caller) -> None:
    (first,) = caller.tick()
    caller.replaces = 4242
    opened = caller.dials.on_answer(answered(first, local(2)), START)
    assert opened is not None
    confirm = wire.decode_control(opened.confirm)
    assert isinstance(confirm, wire.Confirm)
    assert (opened.instead, confirm.instead) == (4242, 4242)


def test_a_hastened_dial_leaves_at_once(caller: Caller) -> None:
    (first,) = caller.tick()
    assert caller.tick(START + 0.01) == []
    caller.dials.hasten({ELSEWHERE, None}, START + 0.01)
    assert caller.tick(START + 0.01) == []
    caller.dials.hasten({THERE}, START + 0.01)
    assert caller.tick(START + 0.01) == [first]


def test_what_is_stopped_is_neither_sent_nor_answered(caller: Caller) -> None:
    (first,) = caller.tick()
    caller.dials.stop(THERE, START)
    assert caller.schedule(0.1) == []
    assert caller.dials.on_answer(answered(first, local(2)), START) is None
    caller.dials.stop(THERE, START)


def test_stopping_for_a_node_ends_what_was_meant_for_it_and_for_where_it_is(caller: Caller) -> None:
    caller.dials.start(ELSEWHERE, START, target=5)
    caller.dials.start(("192.0.2.4", 1), START)
    caller.dials.start(("192.0.2.5", 1), START, target=6)
    caller.dials.stop_for(5, {THERE, None}, START)
    assert [dial.endpoint for dial in caller.dials.all()] == [("192.0.2.4", 1), ("192.0.2.5", 1)]


def test_each_dial_holds_one_index_and_gives_it_back() -> None:
    caller = Caller()
    caller.dials.start(THERE, START)
    caller.schedule(60)
    indices = caller.local.indices
    assert len(indices._taken) - len(indices._resting) == 1
    caller.dials.stop(THERE, START + 60)
    assert len(indices._taken) == len(indices._resting)


def test_dials_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_PEERS", 2)
    caller = Caller()
    for number in range(1, 4):
        caller.dials.start((f"192.0.2.{number}", 1), START)
    assert len(caller.dials.all()) == 2
    assert caller.out.counters == {"dials_full": 1}


# --- inside a session, and what strangers say ------------------------------------------------------------------------
def test_inside_a_session_the_first_try_goes_alone_and_repetitions_go_both_ways(caller: Caller) -> None:
    caller.carries = True
    assert caller.tick() == []
    dial = caller.dials.get(THERE)
    assert dial is not None
    (repeated,) = caller.tick(dial.next_at)
    assert caller.inside == [repeated, repeated]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (wire.NEED_PASSWORD, "peer requires a password"),
        (wire.HAVE_NONE, "peer has no password"),
        (wire.TAG_FAILED, "wrong password"),
        (wire.OTHER_VERSION, "peer speaks another version of the protocol; this node speaks 1"),
        (99, "rejected"),
    ],
)
def test_a_reject_is_shown_and_changes_nothing_else(caller: Caller, code: int, reason: str) -> None:
    (first,) = caller.tick()
    reject = bytes((wire.REJECT, code)) + first[2:16]
    before = caller.dials.deadline
    caller.dials.on_reject(ELSEWHERE, reject)
    caller.dials.on_reject(THERE, reject + b"x")
    dial = caller.dials.get(THERE)
    assert dial is not None
    assert dial.reason == ""
    caller.dials.on_reject(THERE, reject)
    assert (dial.reason, dial.mismatch) == (reason, True)
    assert caller.dials.deadline == before
    assert caller.dials.on_answer(answered(first, local(2)), START) is not None


def test_our_own_message_from_where_we_dialled_is_ourself(caller: Caller) -> None:
    (first,) = caller.tick()
    dial = caller.dials.get(THERE)
    assert dial is not None
    caller.dials.on_reflected(ELSEWHERE, first)
    caller.dials.on_reflected(THERE, first[:8] + bytes(8) + first[16:])
    assert dial.reason == ""
    caller.dials.on_reflected(THERE, first)
    assert (dial.reason, dial.mismatch) == ("cannot connect to ourself", True)


def test_an_endpoint_as_text() -> None:
    assert text(("192.0.2.7", 6783)) == "192.0.2.7:6783"
    assert text(("2001:db8::7", 6783)) == "[2001:db8::7]:6783"


@pytest.mark.parametrize(("seconds", "again"), [(2.0, False), (90.0, True), (float("inf"), True)])
def test_who_is_turned_away_is_tried_again_only_for_as_long_as_was_meant(seconds: float, again: bool) -> None:
    caller = Caller()
    caller.dials.start(THERE, START, target=local(2).id, seconds=seconds)
    (first,) = caller.tick()
    opened = caller.dials.on_answer(answered(first, local(2)), START)
    assert opened is not None
    caller.dials.refuse(opened, "belongs to another cluster", START)
    assert (caller.dials.get(THERE) is not None) is again
    assert caller.tick(START) == []
    caller.dials.tick(START + 91.0)
    assert (caller.dials.get(THERE) is not None) is (seconds == float("inf"))
