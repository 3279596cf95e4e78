"""The compiled kernel is the reference byte for byte: both live the same drawn lives, and everything is compared.

`make test` runs the same lives each time; `make soak` runs new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from tests.dataplane.commands import PREFIXES, Open, World, chapter
from tests.dataplane.fakes import ALL_FEATURES
from tests.dataplane.twins import Twins
from tunrouter.core import bounds, seam
from tunrouter.dataplane import build, compiled, reference

FEATURES: Final = (ALL_FEATURES, ALL_FEATURES, ("csum", "tso4"), ("csum", "tso6", "uso4", "ecn"), ())
VERSIONS: Final = ((4, 6), (4, 6), (4,), (6,))

lives = given(
    features=st.sampled_from(FEATURES),
    versions=st.sampled_from(VERSIONS),
    opened=st.sampled_from([(0, 1), (0, 1), (0, 1, 2), (1, 2, 3), (2, 4), ()]),
    mtu=st.sampled_from([bounds.MAX_FRAME, bounds.MAX_FRAME, 600]),
    life=st.lists(st.integers(0, (1 << 32) - 1), min_size=2, max_size=12, unique=True),
)
slow = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


def live(
    features: tuple[str, ...], versions: Sequence[int], opened: Sequence[int], mtu: int, life: Sequence[int]
) -> None:
    twins = Twins(features, versions)
    world = World(twins)
    for prefix in PREFIXES[:8]:
        twins.apply(seam.Route(*prefix))
    twins.apply(seam.PathMtu(2, mtu))
    for place in opened:
        Open(place).run(world)
    for number in life:
        for command in chapter(number):
            note(repr(command))
            command.run(world)
    twins.report()


@settings(slow, max_examples=150, derandomize=True)
@example(ALL_FEATURES, (4, 6), (), bounds.MAX_FRAME, [3251761, 5184])  # a train met the end of the buffer
@example(ALL_FEATURES, (4, 6), (0, 1, 2), bounds.MAX_FRAME, [1788, 65245])  # a relayed train, a socket without trains
@example(
    ALL_FEATURES, (4, 6), (0, 1), bounds.MAX_FRAME, [1434, 13227]
)  # a relayed super-packet, then its hop's packets
@lives
def test_both_kernels_live_the_same_life(
    features: tuple[str, ...], versions: Sequence[int], opened: Sequence[int], mtu: int, life: Sequence[int]
) -> None:
    live(features, versions, opened, mtu, life)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(slow, max_examples=20_000)
@lives
def test_both_kernels_live_many_lives(
    features: tuple[str, ...], versions: Sequence[int], opened: Sequence[int], mtu: int, life: Sequence[int]
) -> None:
    live(features, versions, opened, mtu, life)


def test_both_kernels_count_under_the_same_names_in_the_same_order() -> None:
    assert compiled.NAMES == reference.COUNTERS


def test_the_limits_of_the_compiled_kernel_are_those_of_the_product() -> None:
    limits = dict(build.limits())
    for name in ("MAX_FLOWS", "MAX_COALESCED", "MAX_TRAIN_SEGMENTS", "REJECT_MESSAGES", "MOVED_SECONDS"):
        assert limits[name] == repr(getattr(bounds, name))
