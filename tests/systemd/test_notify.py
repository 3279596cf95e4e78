"""sd_notify by our own lines: what is sent, to whom, and that nothing is where nobody listens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.systemd.manager import Manager
from tunrouter.edge.notify import Notifier

PID = 4711


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_reach_the_socket_that_was_named(tmp_path: Path, abstract: bool) -> None:
    with Manager(tmp_path, abstract=abstract) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address}, PID)
        assert notifier.say("READY=1", "STATUS=grün")
        assert manager.hear() == ["READY=1", "STATUS=grün"]
        notifier.close()


def test_without_a_manager_nothing_happens() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "1000000"}):
        notifier = Notifier(environ, PID)
        assert notifier.say("READY=1")
        assert notifier.watchdog == 0
        notifier.close()


def test_the_variables_are_ours_alone(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        environ = {
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": "20000000",
            "WATCHDOG_PID": "4711",
            "PATH": "/bin",
        }
        Notifier(environ, PID).close()
        assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("interval", "watched", "seconds"),
    [
        ("20000000", "4711", 20.0),
        ("20000000", "", 20.0),
        ("20000000", "4712", 0.0),
        ("", "4711", 0.0),
        ("0", "", 0.0),
        ("-5", "", 0.0),
        ("٣", "", 0.0),
        ("1" * 100, "", ((1 << 64) - 1) / 1e6),
    ],
)
def test_the_watchdog_is_that_of_this_process(tmp_path: Path, interval: str, watched: str, seconds: float) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": interval, "WATCHDOG_PID": watched}
    notifier = Notifier(environ, PID)
    assert notifier.watchdog == seconds
    notifier.close()


def test_a_manager_that_does_not_listen_holds_up_nothing_and_is_heard_of(tmp_path: Path) -> None:
    """A datagram socket whose reader sleeps takes a few messages, and would then let a writer wait."""
    with Manager(tmp_path) as manager:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address}, PID)
        most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 2
        began = time.monotonic()
        taken = [notifier.say("WATCHDOG=1") for _ in range(most)]
        assert time.monotonic() - began < 2
        assert taken[0]
        assert not taken[-1]
        manager.waiting()
        assert notifier.say("WATCHDOG=1")
        notifier.close()
    gone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, PID)
    assert not gone.say("READY=1")
    gone.close()


def test_no_program_inherits_the_socket(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, PID)
    assert notifier._socket is not None
    assert not notifier._socket.get_inheritable()
    notifier.close()
