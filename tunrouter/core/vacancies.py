"""Which block a node claims: one that nobody is known to hold, of those one that never was before one that was.

Law: many who want one at the same moment must not want the same, so each begins at a place of its own. Where a register
may vanish although its holder lives, a block that somebody lost lately is left alone: its holder may want it back.
"""

from __future__ import annotations

from collections.abc import Collection

from tunrouter.core import bounds
from tunrouter.core.registry import Registry


def choose(
    registry: Registry, taken: Collection[int], places: int, start: int, now: float
) -> tuple[int | None, bool, str]:
    """The place, from `start` on, whether it is known to have had a holder before, and what is in the way of others."""
    lost: list[tuple[float, int]] = []
    for at in range(places):
        place = (start + at) % places
        if place in taken:
            continue
        since = registry.left_at(place)
        if since is None:
            return place, False, ""
        lost.append((since, place))
    if not lost:
        return None, False, ""
    since, place = min(lost)
    if now - since < bounds.LATELY_HELD_SECONDS:
        minutes = bounds.LATELY_HELD_SECONDS / 60
        return None, False, f": {len(lost)} were given up less than {minutes:.0f} minutes ago"
    return place, True, ""
