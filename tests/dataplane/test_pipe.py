"""The seam's pipe: order, what waits and what is dropped when the other end does not read."""

from __future__ import annotations

import errno
import socket

import pytest

from tunrouter.core import bounds, seam
from tunrouter.dataplane.pipe import open_pipe
from tunrouter.errors import ProtocolError

SOURCE = ("192.0.2.1", 6783)


def test_messages_cross_both_ways_in_order() -> None:
    control, worker = open_pipe()
    for i in range(bounds.WAKEUP_BATCH + 5):
        control.send(seam.Deliver(i))
    worker.send(seam.Wanted(3))
    assert [message.session for message in worker.receive() if isinstance(message, seam.Deliver)] == list(
        range(bounds.WAKEUP_BATCH)
    )
    assert len(worker.receive()) == 5
    assert worker.receive() == []
    assert control.receive() == [seam.Wanted(3)]
    control.close()
    worker.close()


def test_state_waits_and_lossy_messages_are_dropped_when_nobody_reads() -> None:
    control, worker = open_pipe()
    count = 0
    while not control.wants_write:
        control.send(seam.Deliver(count))
        count += 1
    control.send(seam.SendRaw(SOURCE, b"x"))
    assert control.dropped == 1
    control.send(seam.Deliver(count))
    got: list[seam.ToWorker] = []
    while len(got) <= count:
        got += worker.receive()
        control.flush()
    while messages := worker.receive():
        got += messages
    assert got == [seam.Deliver(i) for i in range(count + 1)]
    control.close()
    worker.close()


class Poor:
    """A socket of a kernel that has no memory for the first few messages."""

    def __init__(self, end: socket.socket, times: int) -> None:
        self._end = end
        self.times = times

    def send(self, data: bytes) -> int:
        if self.times:
            self.times -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return self._end.send(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._end, name)


def test_state_waits_while_the_kernel_has_no_memory() -> None:
    control, worker = open_pipe()
    control._end = Poor(control._end, 2)  # type: ignore[assignment]
    control.send(seam.Deliver(1))
    assert control.wants_write
    control.flush()
    control.send(seam.Deliver(2))
    control.flush()
    assert worker.receive() == [seam.Deliver(1), seam.Deliver(2)]
    control.close()
    worker.close()


def test_the_backlog_is_bounded() -> None:
    control, worker = open_pipe()
    while not control.wants_write:
        control.send(seam.Deliver(0))
    for _ in range(bounds.SEAM_BACKLOG - 1):
        control.send(seam.Deliver(0))
    with pytest.raises(ProtocolError):
        control.send(seam.Deliver(0))
    control.close()
    worker.close()


def test_the_last_word_of_a_session_is_dropped_where_no_more_may_wait() -> None:
    control, worker = open_pipe()
    waiting, word = 0, seam.Retired(128, 1, 1, 1, 1)
    while worker.send(word):
        waiting += worker.wants_write
        assert waiting <= bounds.SEAM_BACKLOG
    assert (waiting, worker.dropped) == (bounds.SEAM_BACKLOG, 1)
    control.close()
    worker.close()


def test_handshakes_leave_room_for_others() -> None:
    control, worker = open_pipe()
    for _ in range(2000):
        worker.send(seam.Raw(SOURCE, bytes(1000)))
    assert worker.dropped_raw > 0
    assert worker.dropped == 0
    worker.send(seam.Wanted(1))
    assert (worker.dropped, worker.wants_write) == (0, False)
    control.close()
    worker.close()


@pytest.mark.parametrize("size", [100, 1400, 60_000])
def test_what_members_can_make_any_number_of_leaves_room_for_heartbeats(size: int) -> None:
    control, worker = open_pipe()
    for number in range(bounds.ASTRAY_PER_SECOND):
        worker.send(seam.Astray(9, bytes(size)))
        worker.send(seam.HopWanted(number))
        control.send(seam.Relayed(9, bytes(size)))
    assert worker.dropped > 0
    assert control.dropped > 0
    assert worker.send(seam.Control(7, SOURCE, b"heartbeat", 50))
    assert control.send(seam.SendControl(7, b"heartbeat"))
    control.close()
    worker.close()


def test_the_largest_message_passes() -> None:
    control, worker = open_pipe()
    control.send(seam.SendRaw(SOURCE, bytes(bounds.MAX_TRAIN_BYTES)))
    assert len(worker.receive()) == 1
    control.close()
    worker.close()


def test_a_message_that_is_too_large_is_refused_and_not_cut() -> None:
    control, worker = open_pipe()
    with pytest.raises(ProtocolError, match=r"Known of \d+ bytes does not fit the seam"):
        control.send(seam.Known(tuple(f"10.{i >> 8}.{i & 255}.255" for i in range(10_000))))
    control.send(seam.Deliver(1))
    assert worker.receive() == [seam.Deliver(1)]
    control.close()
    worker.close()


def test_reports_of_thousands_of_sessions_leave_room_for_heartbeats_and_none_is_lost() -> None:
    control, worker = open_pipe()
    due = [seam.Used(i, 1, 1, 1, 1, 1.0, 1.0) for i in range(5000)]
    got: list[seam.ToControl] = []
    while due:
        while due and worker.send(due[0]):
            due.pop(0)
        assert worker.send(seam.Control(7, SOURCE, b"heartbeat", 50))
        while messages := control.receive():
            got += messages
    assert [message.session for message in got if isinstance(message, seam.Used)] == list(range(5000))
    assert (worker.dropped, worker.dropped_raw) == (0, 0)
    control.close()
    worker.close()


def test_a_closed_other_end_is_seen() -> None:
    control, worker = open_pipe()
    control.close()
    assert worker.receive() == []
    assert worker.closed
    worker.send(seam.Wanted(1))
    worker.close()


def test_rubbish_is_counted_and_its_neighbours_arrive() -> None:
    control, worker = open_pipe()
    control.send(seam.Deliver(1))
    control._end.send(b"rubbish")
    control.send(seam.Deliver(2))
    assert worker.receive() == [seam.Deliver(1), seam.Deliver(2)]
    assert worker.malformed == 1
    control.close()
    worker.close()


def test_the_last_words_of_an_end_that_had_not_read_everything_are_heard() -> None:
    control, worker = open_pipe()
    for i in range(3):
        control.send(seam.Deliver(i))
    worker.send(seam.Wanted(1))
    worker.send(seam.Wanted(2))
    worker.close()
    assert control.receive() == [seam.Wanted(1), seam.Wanted(2)]
    assert control.closed
    control.close()


def test_state_for_a_newborn_may_wait_beyond_the_backlog() -> None:
    control, worker = open_pipe()
    state = [seam.Deliver(i) for i in range(3 * bounds.SEAM_BACKLOG)]
    control.tell(state)
    got: list[seam.ToWorker] = []
    while len(got) < len(state):
        got += worker.receive()
        control.flush()
    assert got == state
    control.close()
    worker.close()
