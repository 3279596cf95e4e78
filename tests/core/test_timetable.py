"""The timetable against a plain dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunrouter.core.timetable import NEVER, Timetable

TIMES = st.sampled_from((1.0, 2.0, 3.0, 5.0, 8.0, NEVER))


@given(st.lists(st.tuples(st.integers(0, 5), TIMES) | TIMES.filter(lambda at: at != NEVER), max_size=200))
def test_it_gives_what_a_dict_would_give(steps: list[tuple[int, float] | float]) -> None:
    table, model = Timetable(), dict[int, float]()
    for step in steps:
        if isinstance(step, tuple):
            table.set(*step)
            model[step[0]] = step[1]
        else:
            due = sorted(key for key, at in model.items() if at <= step)
            assert sorted(table.due(step)) == due
            for key in due:
                del model[key]
        assert table.next == min(model.values(), default=NEVER)


def test_superseded_entries_are_bounded() -> None:
    table = Timetable()
    for number in range(100_000):
        table.set(number % 10, float(number))
    assert len(table._heap) <= 2 * 10 + 17
