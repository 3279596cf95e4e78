"""What happens between two snapshots, as rates: true to the data plane's own clock, and never below nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from tests.cli.test_render import ESTABLISHED, RETRYING, SNAPSHOT, B
from tunrouter.cli.rates import MAX_GONE, Interval, Meter, Row
from tunrouter.core.status import Connection, Snapshot


def peer(sent: int, received: int, counted: float | None = 0.0, name: str = B) -> Connection:
    """So many packets of 100 bytes each."""
    return msgspec.structs.replace(
        ESTABLISHED,
        peer=name,
        sent_packets=sent,
        sent_bytes=100 * sent,
        received_packets=received,
        received_bytes=100 * received,
        counted=counted,
    )


def at(uptime: float, *connections: Connection, incarnation: int = 1, **counters: int) -> Snapshot:
    return msgspec.structs.replace(
        SNAPSHOT, uptime=uptime, incarnation=incarnation, connections=(RETRYING, *connections), counters=counters
    )


def looks(*snapshots: Snapshot) -> list[Interval]:
    meter = Meter(snapshots[0])
    return [meter.look(snapshot, 1.0) for snapshot in snapshots[1:]]


def sent(intervals: Sequence[Interval], name: str = B) -> list[float | None]:
    return [row.sent_packets for interval in intervals for row in interval.peers if row.peer == name]


def test_a_rate_is_of_a_second() -> None:
    (found,) = looks(at(100, peer(10, 20)), at(102, peer(30, 80)))
    (row,) = found.peers
    assert (row.sent_packets, row.received_packets) == (10, 30)
    assert (row.sent_bits, row.received_bits) == (8000, 24_000)
    assert (found.seconds, found.restarted, found.total.sent_bits) == (2, False, 8000)
    assert (row.nickname, row.rtt, row.loss, row.mtu, row.path) == ("host-2", 0.00042, 0.0123, 1439, "direct")


def test_looks_that_beat_against_the_reports_see_the_same_rate_all_the_time() -> None:
    """Reports come each second at .95, looks a little more often, so that one falls between the same two reports."""
    snapshots = []
    for number in range(40):
        now = 100.0 + 0.93 * number
        told = int(now + 0.05) - 0.05
        snapshots.append(at(now, peer(int(100 * told + 0.5), 0, counted=now - told)))
    assert sent(looks(*snapshots))[1:] == pytest.approx([100.0] * 38, rel=0.01)


def test_who_fell_silent_has_no_rate_after_a_moment() -> None:
    quiet = [at(102.0 + step, peer(30, 0, counted=1.0 + step)) for step in (0.0, 1.0, 2.0)]
    found = looks(at(100, peer(10, 0)), at(101, peer(30, 0)), *quiet)
    assert sent(found) == [20, 20, 0, 0]


def test_who_begins_after_a_long_silence_is_not_averaged_over_it() -> None:
    idle = [at(1000.0 + step, peer(5, 5, counted=900.0 + step)) for step in range(3)]
    found = looks(*idle, at(1003, peer(205, 5)))
    assert sent(found) == [0, 0, 100], "of the two seconds in which they can have been sent"


def test_an_agent_that_was_started_anew_begins_at_nothing() -> None:
    before = at(5000, peer(1_000_000, 0), drop_tag=900, drop_replay=50)
    after = at(2.0, peer(50, 10), incarnation=2, drop_tag=4, drop_replay=70)
    after = msgspec.structs.replace(after, started=before.started + 5002)
    (found,) = looks(before, after)
    assert found.restarted
    assert sent([found]) == [25]
    assert found.seconds == 4.0
    assert found.dropped == {"drop_tag": 1.0, "drop_replay": 5.0}, "a worker may outlive its agent, and go on counting"
    (found,) = looks(before, msgspec.structs.replace(after, started=before.started - 9e9))
    assert found.seconds == 2.0, "a wall clock that was set back"


def test_a_peer_that_comes_has_no_rate_yet_and_one_that_went_and_came_back_no_wrong_one() -> None:
    found = looks(
        at(100, peer(10, 0)),
        at(101, peer(20, 0), peer(900_000, 0, name="new")),
        at(102, peer(910_000, 0, name="new")),
        at(103, peer(25, 0), peer(920_000, 0, name="new")),
    )
    assert sent(found, "new") == [None, 10_000, 10_000]
    assert sent(found) == [10, 2.5], "five packets, in the last of the seconds that it was away, or the report's"


def test_sums_that_go_back_without_a_new_life_tell_nothing() -> None:
    found = looks(at(100, peer(500, 500)), at(101, peer(3, 3)), at(102, peer(13, 3)))
    assert sent(found) == [None, 10]


def test_before_anything_was_counted_there_is_nothing() -> None:
    found = looks(at(100, peer(0, 0, counted=None)), at(101, peer(0, 0, counted=None)), at(102, peer(40, 0)))
    assert sent(found) == [0, 20]


def test_only_drops_that_grew_are_named() -> None:
    before = at(100, drop_tag=7, drop_replay=1, drop_kind=5, rekeys=1)
    (found,) = looks(before, at(102, drop_tag=17, drop_replay=1, drop_kind=0, rekeys=9, relay_no_route=2))
    assert found.dropped == {"drop_tag": 5.0, "relay_no_route": 1.0}
    assert found.drops == 6.0


def test_memory_has_a_bound_whoever_comes_and_goes() -> None:
    meter = Meter(at(0))
    for number in range(30):
        strangers = [peer(1, 1, name=f"{number}-{one}") for one in range(1000)]
        meter.look(at(number + 1.0, *strangers), 0.0)
    assert len(meter._sums) <= MAX_GONE + 1000
    assert len(meter._rates) == 1000


def test_json_has_the_schema_first_and_every_field() -> None:
    (found,) = looks(at(100, peer(10, 20)), at(102, peer(30, 80)))
    text = msgspec.json.encode(found)
    assert text.startswith(b'{"schema":1,"node":')
    assert set(msgspec.json.decode(text)["peers"][0]) == set(Row.__struct_fields__)
