"""The log: one event one line, what repeats is said once, nothing a peer says can spoil the terminal."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tunrouter.agent import logs


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    yield stream
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def test_one_event_is_one_line_without_control_characters(stream: io.StringIO) -> None:
    logs.configure("info", json=False)
    logging.getLogger("x").info("name\n\x1b[31mred\u2028end")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "name\\n\\x1b[31mred\\u2028end" in stream.getvalue()


def test_json_lines_are_json(stream: io.StringIO) -> None:
    logs.configure("warning", json=True)
    logging.getLogger("x").info("not this")
    logging.getLogger("x").warning('a "quoted"\nline')
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == 'a "quoted"\nline'
    assert json.loads(line)["level"] == "warning"


def test_a_key_is_silent_for_a_minute_and_then_says_how_often_it_was(stream: io.StringIO) -> None:
    logs.configure("info", json=False)
    once = logs.OncePerKey(logging.getLogger("x"))
    for second in range(60):
        once.say("info", "key", "again", float(second))
    once.say("info", "other", "different", 59.0)
    assert stream.getvalue().count("again") == 1
    assert stream.getvalue().count("different") == 1
    once.say("info", "key", "again", 60.0)
    assert "again (and 59 times more)" in stream.getvalue()


def test_keys_are_bounded() -> None:
    once = logs.OncePerKey(logging.getLogger("silent"))
    for number in range(5 * logs.MAX_KEYS):
        once.say("debug", str(number), "", 0.0)
    assert len(once._last) <= logs.MAX_KEYS
