"""The documentation explains every check of this host, in the order in which they speak, and all that agents tell."""

from __future__ import annotations

import re
from pathlib import Path

from tests.agent.snapshots import SNAPSHOT
from tunrouter.doctor import CHECKS, told

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def test_the_page_and_the_checks_agree() -> None:
    _, _, section = PAGE.read_text().partition("### On this host\n")
    table = section.partition("\n#")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \| (.+) \|$", table, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(CHECKS)
    assert all(meaning.strip() and fix.strip() for _, meaning, fix in rows)


def test_the_page_explains_what_agents_tell() -> None:
    _, _, section = PAGE.read_text().partition("### What the agent knows")
    table = section.partition("\n#")[0]
    rows = re.findall(r"^\| .+ \| ((?:`[\w-]+`(?:, )?)+) \| .+ \| .+ \|$", table, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"[\w-]+", row)} == {one.check for one in told(SNAPSHOT)}
