"""A set of whole numbers, kept as runs: what a large range lacks costs memory, what it holds does not.

Law: runs are sorted, disjoint and never touch, so a member is found by bisection; taking one out of the middle of a run
makes two of it, and putting it back joins them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Runs:
    def __init__(self, first: int, last: int) -> None:
        """All numbers from `first` to `last`; none if it is the smaller one."""
        self._firsts = [first] if first <= last else []
        self._lasts = [last] if first <= last else []
        self._size = max(last - first + 1, 0)

    def __len__(self) -> int:
        return self._size

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self._lasts, number)
        return place < len(self._lasts) and self._firsts[place] <= number

    def next(self, number: int) -> int:
        """The first member that is not smaller, or else the smallest of all. Raises IndexError if there is none."""
        place = bisect_left(self._lasts, number)
        return max(self._firsts[place], number) if place < len(self._lasts) else self._firsts[0]

    def remove(self, number: int) -> None:
        """Raises KeyError for what is no member."""
        if number not in self:
            raise KeyError(number)
        place = bisect_left(self._lasts, number)
        first, last = self._firsts[place], self._lasts[place]
        left = [(first, number - 1)] if first < number else []
        right = [(number + 1, last)] if number < last else []
        self._replace(place, place + 1, left + right)
        self._size -= 1

    def add(self, number: int) -> None:
        if number in self:
            return
        start, end = bisect_left(self._lasts, number - 1), bisect_right(self._firsts, number + 1)
        first = min([number, *self._firsts[start:end]])
        last = max([number, *self._lasts[start:end]])
        self._replace(start, end, [(first, last)])
        self._size += 1

    def _replace(self, start: int, end: int, runs: list[tuple[int, int]]) -> None:
        self._firsts[start:end] = [first for first, _ in runs]
        self._lasts[start:end] = [last for _, last in runs]
