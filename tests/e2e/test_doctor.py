"""The doctor beside agents that run: nothing of theirs is an ailment, and what hinders them is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tunrouter.bench.agent import CLI
from tunrouter.bench.lab import Host, Lab

pytestmark = pytest.mark.root


def examined(host: Host, *options: str, **environment: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Its exit code, and of each check the level and the text."""
    command = (*CLI, "doctor", "-o", "json", *options)
    done = host.namespace.run(*command, check=False, env={**host.agent.environment, **environment})
    found = msgspec.json.decode(done.stdout)["findings"]
    return done.returncode, {each["check"]: (each["level"], each["text"]) for each in found}


def test_an_agent_of_ours_is_well_another_is_a_stranger_and_a_clock_that_was_set_is_named(
    pair: Lab, tmp_path: Path, wall_clock: Path
) -> None:
    host = pair.hosts[0]
    code, found = examined(host)
    assert code == 0
    assert [check for check, (level, _) in found.items() if level != "ok" and check != "clock"] == []
    assert found["port"] == ("ok", "UDP 6783 is open")
    assert found["uplink"] == ("ok", "peers are reached through eth0")

    code, found = examined(host, "--socket", str(tmp_path / "nobody"))
    assert code == 1
    assert found["port"][1].startswith("UDP 6783 is held by another tunrouter (pid ")

    clock = tmp_path / "clock"
    for seconds in (100, -100):
        clock.write_text(f"{seconds}\n")
        code, found = examined(host, LD_PRELOAD=str(wall_clock), WALL_CLOCK=str(clock))
        assert code == 0
        assert found["clock"][0] == "warn"
        assert found["clock"][1].startswith(f"the clock was set by {seconds:+} s since the agent started")
