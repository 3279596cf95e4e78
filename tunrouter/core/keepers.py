"""Who had each address that nobody holds at present, and would have it again.

Law: a keeper is known by what outlives its container where there is such a thing (a pod of Kubernetes by its namespace
and name), else by the container itself. What is remembered here gives no right: it is a preference among addresses that
are free, and those that rest only so that a stranger does not get them.
"""

from __future__ import annotations

from typing import NamedTuple


class Keeper(NamedTuple):
    name: str
    interface: str


class Keepers:
    """Of whole numbers, as in `pool.py`, and no more of them than that remembers."""

    def __init__(self) -> None:
        self._of: dict[int, Keeper] = {}
        self._theirs: dict[Keeper, dict[int, int]] = {}
        """Each with the release's number."""

    def remember(self, number: int, keeper: Keeper, order: int) -> None:
        self.forget(number)
        self._of[number] = keeper
        self._theirs.setdefault(keeper, {})[number] = order

    def forget(self, number: int) -> None:
        """Somebody holds it again, or nothing is remembered of it any more."""
        keeper = self._of.pop(number, None)
        if keeper is not None:
            theirs = self._theirs[keeper]
            del theirs[number]
            if not theirs:
                del self._theirs[keeper]

    def theirs(self, keeper: Keeper) -> list[int]:
        """What it had, the last one first."""
        theirs = self._theirs.get(keeper, {})
        return sorted(theirs, key=theirs.__getitem__, reverse=True)

    def __contains__(self, keeper: Keeper) -> bool:
        return keeper in self._theirs

    def __len__(self) -> int:
        return len(self._of)
