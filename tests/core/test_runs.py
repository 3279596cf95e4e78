"""Runs against a plain set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core.runs import Runs

NUMBERS = st.integers(-2, 22)


@given(st.lists(st.tuples(st.booleans(), NUMBERS), max_size=100))
def test_they_hold_what_a_set_would_hold(steps: list[tuple[bool, int]]) -> None:
    runs, model = Runs(0, 20), set(range(21))
    for adds, number in steps:
        if adds:
            runs.add(number)
            model.add(number)
        elif number in model:
            runs.remove(number)
            model.remove(number)
        else:
            with pytest.raises(KeyError):
                runs.remove(number)
        assert len(runs) == len(model)
        assert all((one in runs) == (one in model) for one in range(-3, 24))
        for start in range(-3, 24) if model else ():
            assert runs.next(start) == min((one for one in model if one >= start), default=min(model))
        gaps = [first - last for first, last in zip(runs._firsts[1:], runs._lasts, strict=False)]
        assert all(gap > 1 for gap in gaps)


def test_an_empty_set_has_no_next() -> None:
    assert len(Runs(5, 4)) == 0
    with pytest.raises(IndexError):
        Runs(5, 4).next(0)
