"""Effects leave in order, and are bounded when nobody takes them."""

from __future__ import annotations

import pytest

from tunrouter.core import bounds
from tunrouter.core.outbox import Log, Outbox


def test_effects_leave_in_order() -> None:
    out = Outbox()
    for number in range(3):
        out.log("info", str(number), "")
    assert [effect.key for effect in out.take() if isinstance(effect, Log)] == ["0", "1", "2"]
    assert out.take() == []


def test_effects_that_nobody_takes_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_EFFECTS", 100)
    out = Outbox()
    for number in range(150):
        out.log("info", str(number), "")
    assert len(out.take()) == 100
    assert out.counters["effects_lost"] == 50
    out.log("info", "again", "")
    assert len(out.take()) == 1
