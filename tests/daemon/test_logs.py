"""The log: one event one line, what repeats is said once, nothing a peer says can spoil the terminal."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunrouter.bench.namespaces import wait_until
from tunrouter.daemon import logs


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    yield
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def test_one_event_is_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=False)
    logging.getLogger("x").info("name\n\x1b[31mred\u2028end")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "name\\n\\x1b[31mred\\u2028end" in text


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", json=True)
    logging.getLogger("x").info("not this")
    logging.getLogger("x").warning('a "quoted"\nline')
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("time") == pytest.approx(time.time(), abs=60)
    assert found == {"level": "warning", "subject": "x", "event": "other", "message": 'a "quoted"\nline'}


def test_a_line_of_the_core_tells_whom_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=True)
    once = logs.OncePerKey(logging.getLogger("x"))
    for now in (0.0, 1.0, 60.0):
        once.say("warning", "reject 192.0.2.7", "no", now, peer="", address="192.0.2.7:1", reason="wrong password")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["address"], first["reason"]) == ("reject", "192.0.2.7:1", "wrong password")
    assert "suppressed" not in first
    assert "peer" not in first, "what is not known is no field"
    assert second["suppressed"] == 1


@pytest.mark.parametrize("form", [False, True], ids=["text", "json"])
def test_what_was_raised_stands_in_the_line(capsys: pytest.CaptureFixture[str], form: bool) -> None:
    logs.configure("info", json=form)
    try:
        int("a\nb")
    except ValueError:
        logging.getLogger("x").exception("it failed")
    text = capsys.readouterr().err
    assert "it failed: ValueError(" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("say", ["events", "lines"])
def test_a_flood_of_one_kind_is_a_few_lines_and_their_number(capsys: pytest.CaptureFixture[str], say: str) -> None:
    """Ten thousand sources, or one line of a library that comes again and again."""
    logs.configure("info", json=True, lines=5, seconds=0.3)
    log = logging.getLogger("x")
    once = logs.OncePerKey(log)
    for number in range(10_000):
        if say == "events":
            once.say("warning", f"mismatch 192.0.2.{number}", f"somebody {number}", 0.0, address=str(number))
        else:
            log.warning("somebody %d", number)
    log.warning("another kind")
    said: list[dict[str, object]] = []

    def summed_up() -> bool:
        said.extend(map(json.loads, capsys.readouterr().err.splitlines()))
        return "more lines" in str(said[-1]["message"])

    wait_until("the rest is counted", summed_up, 10)
    summary = said.pop()
    assert said.pop()["message"] == "another kind"
    written = [line for line in said if "more lines" not in str(line["message"])]
    suppressed = [line["suppressed"] for line in (*said, summary) if "suppressed" in line]
    assert len(written) + sum(map(int, map(str, suppressed))) == 10_000
    assert len(written) < 500
    assert summary["event"] == ("mismatch" if say == "events" else "other")
    assert "the first: somebody 5" in str(next(line for line in (*said, summary) if "suppressed" in line)["message"])


@pytest.mark.parametrize("json", [False, True])
def test_the_journal_gets_a_priority_and_not_the_time(json: bool, tmp_path: Path) -> None:
    """As a service's: standard error is what JOURNAL_STREAM names."""
    program = f"import logging; from tunrouter.daemon import logs; logs.configure('debug', json={json})\n"
    program += "for level in 'debug', 'info', 'warning', 'error': getattr(logging.getLogger('x'), level)('a\\nb')"
    for named in (True, False):
        with (tmp_path / "journal").open("w+b") as journal:
            found = os.fstat(journal.fileno())
            stream = f"{found.st_dev}:{found.st_ino}" if named else f"{found.st_dev}:{found.st_ino + 1}"
            environ = dict(os.environ, JOURNAL_STREAM=stream)
            subprocess.run([sys.executable, "-c", program], stderr=journal, env=environ, check=True, timeout=30)
            journal.seek(0)
            lines = journal.read().decode().splitlines()
        assert [line.startswith("<") for line in lines] == [named] * 4
        if named:
            assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>"]
            assert all(line[3:] == "a\\nb" or json for line in lines)


def test_the_level_changes_while_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", json=False)
    logging.getLogger("x").info("before")
    logs.set_level("debug")
    logging.getLogger("x").debug("after")
    assert capsys.readouterr().err.endswith("debug   after\n")


def test_a_key_is_silent_for_a_minute_and_then_says_how_often_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=False)
    once = logs.OncePerKey(logging.getLogger("x"))
    for second in range(60):
        once.say("info", "key", "again", float(second))
    once.say("info", "other", "different", 59.0)
    text = capsys.readouterr().err
    assert text.count("again") == 1
    assert text.count("different") == 1
    once.say("info", "key", "again", 60.0)
    assert "again (and 59 times more)" in capsys.readouterr().err


def test_keys_are_bounded() -> None:
    once = logs.OncePerKey(logging.getLogger("silent"))
    for number in range(5 * logs.MAX_KEYS):
        once.say("debug", str(number), "", 0.0)
    assert len(once._last) <= logs.MAX_KEYS
