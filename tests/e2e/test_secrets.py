"""The password: what happens when it differs, and that no process shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core.status import Connection

pytestmark = pytest.mark.root

PASSWORD = "nine-otters-juggle-copper-kettles-at-dusk"


def failure(host: Host) -> Connection:
    """The connection whose reason says more than that nobody answers."""

    def seen() -> Connection | None:
        return next((found for found in host.agent.connections() if found.state == "failed" and found.reason), None)

    return wait_until(f"a mismatch is shown on {host.name}", seen, 10, pause=0.1)


def mismatch(first: str | None, second: str | None) -> tuple[str, str]:
    """What both ends of two agents with these passwords say of their connection."""
    with Lab(hosts=2) as lab:
        one, two = lab.hosts
        one.agent.start(password=first)
        two.agent.start(one.address, password=second)
        reasons = (failure(one).reason, failure(two).reason)
        listed = two.agent.command("status", "connections").stdout
        assert "failed" in listed
        assert reasons[1] in listed
        return reasons


def test_the_three_mismatches_are_told_apart_on_the_side_that_connects_and_shown_on_both() -> None:
    wrong = mismatch(PASSWORD, PASSWORD + "!")
    only_there = mismatch(PASSWORD, None)
    only_here = mismatch(None, PASSWORD)
    assert len({wrong[1], only_there[1], only_here[1]}) == 3
    assert all("password" in reason for pair in (wrong, only_there, only_here) for reason in pair)


@pytest.mark.parametrize("way", ["flag", "flag=", "environment", "file"])
def test_no_command_line_shows_the_password(way: str) -> None:
    with Lab(hosts=1) as lab:
        agent = lab.hosts[0].agent
        match way:
            case "flag":
                agent.start("--password", PASSWORD, password=None)
            case "flag=":
                agent.start(f"--password={PASSWORD}", password=None)
            case "environment":
                agent.extra_environment["TUNROUTER_PASSWORD"] = PASSWORD
                agent.start(password=None)
            case _:
                agent.start(password=PASSWORD)
        assert agent.snapshot().encryption
        shown = [path for path in Path("/proc").glob("[0-9]*/cmdline") if PASSWORD.encode() in read(path)]
        assert shown == []
        environ = Path(f"/proc/{agent.process.pid}/environ").read_bytes()
        assert PASSWORD.encode() not in environ
        assert PASSWORD not in agent.log.read_text()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # that process has ended meanwhile
