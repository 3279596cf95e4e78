"""What a first message of a stranger may cause, and what makes it a peer's: an entry here, and its confirmation."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.core.test_dial import ELSEWHERE, START, THERE, Caller, local
from tunrouter.core import bounds, keys, seam, status, versions, wire
from tunrouter.core.deaf import Deaf
from tunrouter.core.dial import Opened, text
from tunrouter.core.halfopen import DEAF, HalfOpenTable
from tunrouter.core.handshake import RESPONDER_SIGNS, Initiator
from tunrouter.core.local import Local
from tunrouter.core.outbox import Log, Outbox


class Callee:
    """A node that answers, and what it did."""

    def __init__(self, who: Local | None = None) -> None:
        self.local = who or local(2)
        self.out = Outbox()
        self.newest = (-1, -1)
        """Incarnation and sequence of the caller that were confirmed."""
        self.reflected: list[seam.Endpoint] = []
        self.unconfirmed: list[int] = []
        """Whose handshakes began here and were never confirmed."""
        self.noted = True
        """Somebody keeps that in mind."""
        self.table = HalfOpenTable(
            self.local, self.out, self._stale, lambda source, _: self.reflected.append(source), self._unconfirmed
        )

    def _stale(self, sender: int, incarnation: int, sequence: int) -> bool:
        return (incarnation, sequence) <= self.newest

    def _unconfirmed(self, sender: int, now: float) -> bool:
        self.unconfirmed.append(sender)
        return self.noted

    def hear(self, first: bytes, source: seam.Endpoint = THERE, now: float = START) -> list[bytes]:
        """What is sent back."""
        self.table.on_first(source, first, now)
        self.effects = self.out.take()
        return [effect.datagram for effect in self.effects if isinstance(effect, seam.SendRaw)]

    def installs(self) -> list[seam.Install]:
        return [effect for effect in self.effects if isinstance(effect, seam.Install)]

    def confirm(self, base: int, confirm: wire.Confirm, now: float = START) -> Opened | None:
        return self.table.confirm(base, ELSEWHERE, confirm, now)


class Made(NamedTuple):
    caller: Caller
    callee: Callee
    first: bytes
    answer: bytes
    base: int


def called(caller: Caller | None = None) -> tuple[Caller, bytes]:
    caller = caller or Caller()
    caller.dials.start(THERE, START)
    (first,) = caller.tick()
    return caller, first


def half_way(workers: tuple[int, int] = (1, 1)) -> Made:
    """A first message was answered and the answer was read."""
    caller, first = called(Caller(workers[0]))
    callee = Callee(local(2, workers[1]))
    (answer,) = callee.hear(first)
    (install,) = callee.installs()
    return Made(caller, callee, first, answer, install.session)


def confirmation(made: Made) -> wire.Confirm:
    opened = made.caller.dials.on_answer(made.answer, START)
    assert opened is not None
    body = wire.decode_control(opened.confirm)
    assert isinstance(body, wire.Confirm)
    return body


def first_with(who: Local, *, target: int = 0, version: int = versions.NEWEST, inside: bytes | None = None) -> bytes:
    """A first message with one field of its payload chosen."""
    header = wire.HEADER.pack(wire.FIRST, wire.SEALED_MODE, 0, 77, 99)
    payload = wire.First(inside or header, version, who.id, target, who.incarnation, 1, 1)
    return header + Initiator(who.suites[0], bytes(range(32))).write_first(wire.encode_first(payload))


# --- answers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [(1, 1), (3, 1), (1, 3)])
def test_both_ends_have_the_same_lanes_as_many_as_the_larger_count(workers: tuple[int, int]) -> None:
    made = half_way(workers)
    (install,) = made.callee.installs()
    opened = made.caller.dials.on_answer(made.answer, START)
    assert opened is not None
    assert len(install.lanes) == len(opened.lanes) == max(workers)
    for theirs, ours in zip(install.lanes, opened.lanes, strict=True):
        assert (theirs.seal_key, theirs.seal_salt) == (ours.open_key, ours.open_salt)
        assert (theirs.open_key, theirs.open_salt) == (ours.seal_key, ours.seal_salt)
    assert (install.remote, opened.remote) == (opened.base, install.session)
    assert (install.node, install.endpoint, install.sealed) == (made.caller.local.id, THERE, True)


def test_keys_of_an_answer_expire_by_themselves() -> None:
    (install,) = half_way().callee.installs()
    assert install.expires == START + bounds.REJECT_SECONDS


def test_an_answer_is_never_longer_than_what_caused_it() -> None:
    made = half_way()
    assert len(made.answer) <= len(made.first)


def test_a_repetition_gets_the_same_answer_and_nothing_more() -> None:
    made = half_way()
    assert made.callee.hear(made.first, ELSEWHERE) == [made.answer]
    assert made.callee.installs() == []
    assert len(made.callee.table) == 1


def test_entries_are_given_back_after_five_seconds() -> None:
    made = half_way()
    table = made.callee.table
    assert table.deadline == START + bounds.HALF_OPEN_SECONDS
    table.tick(table.deadline - 0.01)
    assert made.base in table
    table.tick(table.deadline)
    assert made.callee.out.take() == [seam.Retire(made.base)]
    assert made.callee.out.counters == {"half_open_expired": 1}
    assert (len(table), table.deadline) == (0, float("inf"))
    (again,) = made.callee.hear(made.first)
    assert again != made.answer, "a message that comes later is answered anew"


def test_entries_are_bounded_and_the_last_one_is_still_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_HALF_OPEN", 2 + bounds.HALF_OPEN_RESERVE)
    callee = Callee()
    answers = [callee.hear(called(caller)[1]) for caller in (Caller(), Caller(2), Caller(3))]
    assert [len(answer) for answer in answers] == [1, 1, 0]
    assert callee.out.counters == {"half_open_full": 1, "handshake_refused": 1}


def test_a_peer_inside_its_session_finds_room_where_strangers_find_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_HALF_OPEN", 1 + bounds.HALF_OPEN_RESERVE)
    callee = Callee()
    answers: list[bytes] = []
    assert [len(callee.hear(called(caller)[1])) for caller in (Caller(), Caller(2))] == [1, 0]
    callee.table.on_carried(THERE, called(Caller(3))[1], answers.append, START)
    assert len(answers) == 1


def test_strangers_that_claim_many_workers_do_not_use_up_the_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_HALF_OPEN_LANES", 100)
    callee = Callee()
    callers = (Caller(64), Caller(36), Caller(1))
    assert [len(callee.hear(called(caller)[1])) for caller in callers] == [1, 1, 0]
    callee.table.tick(START + bounds.HALF_OPEN_SECONDS)
    assert len(callee.hear(called(Caller(64))[1], now=START + bounds.HALF_OPEN_SECONDS)) == 1


# --- confirmations ---------------------------------------------------------------------------------------------------
def test_a_confirmation_opens_where_it_came_from() -> None:
    made = half_way()
    opened = made.callee.confirm(made.base, confirmation(made), START + 0.04)
    assert opened is not None
    assert (opened.node, opened.initiator, opened.endpoint) == (made.caller.local.id, False, ELSEWHERE)
    assert (opened.incarnation, opened.sequence, opened.base) == (7, 1, made.base)
    assert opened.rtt == pytest.approx(0.04)
    assert opened.confirm == b""
    assert made.base not in made.callee.table
    assert made.callee.out.take() == [], "nothing is retired"


def test_a_confirmation_by_relay_does_not_take_the_direct_way_away() -> None:
    """The answer arrived directly, so that is the path that the data plane has; this is but a twin."""
    made = half_way()
    opened = made.callee.table.confirm(made.base, seam.relayed(77), confirmation(made), START)
    assert opened is not None
    assert opened.endpoint == THERE


def test_who_is_answered_by_relay_is_reached_under_its_own_number_whatever_the_relay_called_it() -> None:
    caller, first = called(Caller())
    callee = Callee(local(2))
    (answer,) = callee.hear(first, seam.relayed(77))
    (install,) = callee.installs()
    made = Made(caller, callee, first, answer, install.session)
    opened = callee.table.confirm(made.base, ELSEWHERE, confirmation(made), START)
    assert opened is not None
    assert opened.endpoint == seam.relayed(caller.local.id)


def test_a_confirmation_that_lies_costs_the_keys() -> None:
    other = local(9)
    for field in ("public_key", "signature", "label"):
        made = half_way()
        true = confirmation(made)
        changed = {
            "public_key": wire.Confirm(other.identity.public_key, true.signature, true.introduction),
            "signature": wire.Confirm(true.public_key, bytes(64), true.introduction),
            "label": wire.Confirm(
                true.public_key, made.caller.local.identity.sign(RESPONDER_SIGNS + bytes(64)), true.introduction
            ),
        }
        assert made.callee.confirm(made.base, changed[field]) is None
        assert made.callee.out.counters == {"identity_failed": 1}
        assert made.callee.out.take() == [seam.Retire(made.base)]
        assert made.base not in made.callee.table
        indices = made.callee.local.indices
        assert len(indices._taken) == len(indices._resting) == 1


def test_of_two_handshakes_the_one_confirmed_later_must_be_the_newer() -> None:
    made = half_way()
    made.callee.newest = (7, 1)  # another message of the same caller was confirmed meanwhile
    assert made.callee.confirm(made.base, confirmation(made)) is None
    assert made.callee.out.counters == {"handshake_refused": 1}
    assert made.callee.out.take() == [seam.Retire(made.base)]


# --- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lie", ["target", "header", "stale", "restarted"])
def test_a_message_with_one_lie_gets_no_answer(lie: str) -> None:
    callee, who = Callee(), local(1)
    firsts = {
        "target": first_with(who, target=local(9).id),
        "header": first_with(who, inside=bytes(16)),
        "stale": first_with(who),
        "restarted": first_with(who),
    }
    callee.newest = {"stale": (7, 1), "restarted": (8, 0)}.get(lie, (-1, -1))
    assert callee.hear(firsts[lie]) == []
    assert callee.installs() == []
    assert len(callee.table) == 0
    assert callee.out.counters == {"handshake_refused": 1}


@pytest.mark.parametrize("newer", [0, 1])
def test_who_speaks_our_version_or_also_the_next_is_answered_in_ours(newer: int) -> None:
    callee, who = Callee(), local(1)
    initiator, header = Initiator(who.suites[0], bytes(range(32))), wire.HEADER.pack(wire.FIRST, 1, 0, 77, 99)
    payload = wire.First(header, versions.NEWEST + newer, who.id, 0, who.incarnation, 1, 1)
    (answer,) = callee.hear(header + initiator.write_first(wire.encode_first(payload)))
    said, _ = initiator.read_answer(answer[wire.HEADER_BYTES :])
    assert wire.decode_answer(said).version == versions.NEWEST


@pytest.mark.parametrize("version", [0, versions.NEWEST + 2, 255])
def test_who_speaks_no_version_of_ours_is_told_so_and_remembered(version: int) -> None:
    callee = Callee()
    first = first_with(local(1), version=version)
    (reject,) = callee.hear(first)
    assert reject == bytes((wire.REJECT, wire.OTHER_VERSION)) + first[2:16]
    assert callee.installs() == []
    assert callee.out.counters == {"handshake_version": 1}
    (rejected,) = callee.table.rejected.values()
    assert rejected.reason.startswith(f"peer speaks protocol version {version}, this node 1")


@pytest.mark.parametrize("target", [0, local(2).id])
def test_a_message_for_us_or_for_anybody_is_answered(target: int) -> None:
    assert len(Callee().hear(first_with(local(1), target=target))) == 1


def test_a_newer_message_than_the_last_confirmed_is_answered() -> None:
    for newest in ((7, 0), (6, 100)):
        callee = Callee()
        callee.newest = newest
        assert len(callee.hear(first_with(local(1)))) == 1


def test_our_own_message_is_a_reflection_and_another_lifes_a_clone() -> None:
    callee = Callee()
    assert callee.hear(first_with(callee.local)) == []
    assert callee.reflected == [THERE]
    twin = local(2)
    twin.incarnation = 8
    assert callee.hear(first_with(twin)) == []
    assert callee.reflected == [THERE]
    assert callee.out.counters == {"handshake_refused": 2, "identity_cloned": 1}


@pytest.mark.parametrize("change", ["short", "long", "flags", "reserved", "mode"])
def test_what_has_not_the_shape_of_a_first_message_is_counted(change: str) -> None:
    callee = Callee()
    _, first = called()
    rubbish = {
        "short": first[:-1],
        "long": first + b"\0",
        "flags": first[:1] + b"\x03" + first[2:],
        "reserved": first[:3] + b"\x01" + first[4:],
        "mode": first[:1] + b"\0" + first[2:],
    }
    assert callee.hear(rubbish[change]) == []
    callee.table.on_carried(THERE, rubbish[change], lambda answer: pytest.fail("answered"), START)
    assert callee.out.counters == {"handshake_malformed": 2}


def test_a_message_inside_a_session_is_answered_the_way_it_came() -> None:
    callee, (_, first) = Callee(), called()
    answers: list[bytes] = []
    callee.table.on_carried(THERE, first, answers.append, START)
    assert len(answers) == 1
    assert not [effect for effect in callee.out.take() if isinstance(effect, seam.SendRaw)]


# --- strangers whose secret is another -------------------------------------------------------------------------------
def test_a_mismatch_is_told_shown_and_forgotten() -> None:
    callee, (_, first) = Callee(), called()
    callee.local.use_secrets(keys.KeyRing((b"other" * 6 + b"xx",)))
    (reject,) = callee.hear(first)
    assert reject == bytes((wire.REJECT, wire.TAG_FAILED)) + first[2:16]
    assert {endpoint: seen.reason for endpoint, seen in callee.table.rejected.items()} == {THERE: "wrong password"}
    callee.table.tick(START + bounds.REJECTED_SECONDS - 0.01)
    assert THERE in callee.table.rejected
    callee.table.tick(START + bounds.REJECTED_SECONDS)
    assert not callee.table.rejected


def test_a_stranger_that_joins_after_all_is_no_mismatch_any_more() -> None:
    made = half_way()
    callee = made.callee
    ring = keys.KeyRing((bytes(32),))
    callee.local.use_secrets(keys.KeyRing((b"other" * 6 + b"xx",)))
    for source in (THERE, ELSEWHERE):
        callee.hear(called(Caller(2))[1], source)
    callee.local.use_secrets(ring)
    assert callee.confirm(made.base, confirmation(made)) is not None
    assert list(callee.table.rejected) == [THERE], "the confirmation came from elsewhere"


def strange(callee: Callee, *sources: seam.Endpoint, now: float = START) -> list[str]:
    """A handshake with another password from each; the lines of the log."""
    first = called()[1]
    callee.local.use_secrets(keys.KeyRing((b"other" * 6 + b"xx",)))
    lines = []
    for source in sources:
        callee.hear(first, source, now)
        lines += [effect.text for effect in callee.effects if isinstance(effect, Log)]
    return lines


FLOOD = [(f"198.51.100.{number}", 1) for number in range(bounds.MAX_REJECTED + 20)]


def test_of_strangers_few_are_shown_and_who_came_most_often_stays() -> None:
    callee = Callee()
    strange(callee, THERE, THERE, *FLOOD, FLOOD[-1])
    found = callee.table.rejected
    assert list(found) == [THERE, *FLOOD[-bounds.MAX_REJECTED + 1 :]]
    assert (found[THERE].times, found[FLOOD[-1]].times, found[FLOOD[-2]].times) == (2, 2, 1)
    assert callee.out.counters == {"handshake_mismatch": 2 + len(FLOOD) + 1}


def test_forged_sources_cannot_fill_the_log() -> None:
    callee = Callee()
    lines = strange(callee, *FLOOD)
    assert len([line for line in lines if line.endswith("wrong password")]) == bounds.MAX_REJECTED
    assert {line for line in lines if "more sources" in line} == set(lines[bounds.MAX_REJECTED :])
    later = strange(callee, *((f"203.0.113.{number}", 1) for number in range(20)), now=START + 10)
    assert len([line for line in later if line.endswith("wrong password")]) < 5


def test_a_source_that_is_known_is_logged_again_whatever_others_do() -> None:
    callee = Callee()
    strange(callee, THERE, THERE, *FLOOD)
    assert strange(callee, THERE, now=START + 1) == [f"{text(THERE)}: wrong password"]


# --- handshakes that are never confirmed ------------------------------------------------------------------------------
def unanswered(callee: Callee, *heard: tuple[float, bytes], source: seam.Endpoint = THERE) -> None:
    """These came, and then no confirmation."""
    for seconds, first in heard:
        callee.table.tick(START + seconds)
        callee.hear(first, source, START + seconds)
    callee.table.tick(START + heard[-1][0] + bounds.HALF_OPEN_SECONDS)


def two_firsts() -> tuple[Caller, bytes, bytes]:
    """Of one caller, who made the second when nothing had come of the other."""
    caller = Caller()
    caller.dials.start(THERE, START)
    made = list(dict.fromkeys(first for _, first in caller.schedule(12)))
    return caller, made[0], made[1]


def test_who_does_not_get_our_answers_is_noted_or_shown() -> None:
    caller, first, second = two_firsts()
    callee = Callee()
    unanswered(callee, (0, first), (3, first), (8, second))
    assert callee.unconfirmed == [caller.local.id]
    assert not callee.table.rejected, "its session knows it"
    callee = Callee()
    callee.noted = False
    unanswered(callee, (0, first), (8, second))
    (seen,) = callee.table.rejected.values()
    assert (seen.fault, seen.reason) == (status.ONE_WAY_OUT, DEAF)


@pytest.mark.parametrize(
    "times",
    [[(0, 0)], [(0, 0), (6, 0), (12, 0)], [(0, 0), (1, 1)], [(0, 0), (4.9, 1)], [(0, 0), (100, 1)]],
    ids=["one", "a replay of it", "two at once", "before it was given up", "much later"],
)
def test_first_messages_that_prove_nothing_accuse_nobody(times: list[tuple[float, int]]) -> None:
    firsts = two_firsts()[1:]
    callee = Callee()
    callee.noted = False
    unanswered(callee, *((seconds, firsts[which]) for seconds, which in times))
    assert callee.out.counters["half_open_expired"] == len(times)
    assert (callee.unconfirmed, len(callee.table.rejected)) == ([], 0)


def test_who_got_an_answer_in_between_is_accused_of_nothing() -> None:
    caller, *firsts = two_firsts()
    callee = Callee()
    unanswered(callee, (0, firsts[0]))
    (answer,) = callee.hear(firsts[1], now=START + 8)
    (install,) = callee.installs()
    confirmed = confirmation(Made(caller, callee, firsts[1], answer, install.session))
    assert callee.confirm(install.session, confirmed, START + 8) is not None
    caller.dials.start(THERE, START + 9)
    (third,) = caller.tick(START + 9)
    unanswered(callee, (9, third))
    assert callee.unconfirmed == []


def test_those_who_are_noted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_HALF_OPEN", 10)
    noted = Deaf()
    for sender in range(20):
        assert not noted.gave_up(wire.First(b"", 1, sender, 0, 7, 1, 1), START)
    assert len(noted) == 10


def test_what_came_inside_a_session_or_by_relay_says_nothing_of_the_direct_way() -> None:
    for source in (THERE, seam.relayed(7)):
        callee, (_, first) = Callee(), called()
        if source is THERE:
            callee.table.on_carried(source, first, lambda answer: None, START)
        else:
            callee.hear(first, source)
        callee.table.tick(callee.table.deadline)
        assert callee.unconfirmed == []
        assert callee.out.counters == {"half_open_expired": 1}


def test_of_whom_speaks_another_version_or_is_a_copy_is_shown() -> None:
    callee = Callee()
    callee.hear(first_with(local(1), version=versions.NEWEST + 2), THERE)
    copy = local(2)
    copy.incarnation += 1
    callee.hear(first_with(copy), ELSEWHERE)
    found = callee.table.rejected
    assert {source: seen.fault for source, seen in found.items()} == {THERE: status.VERSION, ELSEWHERE: status.CLONE}
    assert found[THERE].reason.startswith(f"peer speaks protocol version {versions.NEWEST + 2}, this node 1")
