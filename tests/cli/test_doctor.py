"""`doctor` and its agent: one that answers, one that cannot yet, one that stands still, and none."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.cli.conftest import Run
from tests.cli.test_render import SNAPSHOT
from tests.edge.serving import Stub
from tunrouter.cli import doctor
from tunrouter.core.status import Snapshot
from tunrouter.doctor import Finding, Known
from tunrouter.errors import AgentError

pytestmark = pytest.mark.root

HOST = Finding("tools", "ok", "nft and /dev/net/tun are there")


@pytest.fixture(autouse=True)
def told_of_the_host(monkeypatch: pytest.MonkeyPatch) -> list[Known]:
    """What the checks of the host were told; they find nothing, for this is about the agent."""
    told: list[Known] = []

    def diagnose(known: Known) -> list[Finding]:
        told.append(known)
        return [HOST]

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    return told


def test_what_the_agent_tells_follows_what_the_host_shows(tunrouter: Run, agent: Stub) -> None:
    found = json.loads(tunrouter("doctor", "-o", "json").out)
    checks = [finding["check"] for finding in found["findings"]]
    assert checks[0] == "tools"
    assert {"peers", "password", "drops"} <= {*checks}


def test_an_agent_that_is_not_ready_to_tell_is_a_finding_of_its_own(
    tunrouter: Run, agent: Stub, told_of_the_host: list[Known]
) -> None:
    agent.answer = AgentError("the agent is still starting", "try again in a second")
    done = tunrouter("doctor")
    assert done.code == 1
    assert done.out.startswith("fail  agent         the agent is still starting\n")
    assert "ok    tools" in done.out
    assert told_of_the_host[0].running, "its devices and its port are its own"


def test_an_agent_that_stands_still_is_waited_for_no_longer_than_that(
    tunrouter: Run, agent: Stub, told_of_the_host: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.2)

    async def slowly() -> Snapshot:
        await asyncio.sleep(1)
        return SNAPSHOT

    agent.answer = lambda call: slowly()
    done = tunrouter("doctor")
    assert done.code == 1
    assert done.out.startswith("fail  agent         the agent did not answer within 0.2 s, though it is there\n")
    assert "ok    tools" in done.out
    assert told_of_the_host[0].running


def test_without_an_agent_it_says_so(tunrouter: Run, told_of_the_host: list[Known]) -> None:
    done = tunrouter("doctor")
    assert done.code == 0
    assert done.out.startswith("no agent answers here: checking what one would find\n")
    assert not told_of_the_host[0].running
