"""The log: one event one line, what repeats is said once, nothing a peer says can spoil the terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from tunrouter.agent import logs


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
    assert json.loads(line)["message"] == 'a "quoted"\nline'
    assert json.loads(line)["level"] == "warning"


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
