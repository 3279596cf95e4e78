"""What an underlay does to datagrams: mixes flows, and loses, swaps, repeats, cuts and changes datagrams."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

HARMS: Final = ("lose", "swap", "repeat", "old", "cut", "more", "flip")


class Harm(NamedTuple):
    """What the underlay does to the datagrams at a place."""

    how: str
    at: int
    value: int


def riffle(packs: list[list[bytes]], seed: int) -> list[bytes]:
    """One pack of several: each after the other if `seed` is 0, else mixed, each still in its own order."""
    if not seed:
        return [one for pack in packs for one in pack]
    draw = random.Random(seed)
    turns = [i for i, pack in enumerate(packs) for _ in pack]
    draw.shuffle(turns)
    left = [iter(pack) for pack in packs]
    return [next(left[turn]) for turn in turns]


def hurt(data: list[bytes], harm: Harm, past: list[bytes]) -> list[bytes]:
    if not data:
        return data
    at = harm.at % len(data)
    one = data[at]
    if harm.how == "lose":
        return data[:at] + data[at + 1 :]
    if harm.how == "swap":
        other = harm.value % len(data)
        data[at], data[other] = data[other], data[at]
        return data
    if harm.how == "repeat":
        return data[:at] + [one] * (1 + harm.value % 3) + data[at + 1 :]
    if harm.how == "old":
        return data[:at] + past[harm.value % 300 :][:5] + data[at:]
    if harm.how == "cut":
        one = one[: harm.value % (len(one) + 1)]
    elif harm.how == "more":
        one += bytes(harm.value % 60)
    elif one:
        flipped = bytearray(one)
        flipped[harm.value % min(len(one), 100)] ^= 1 << harm.value % 8
        one = bytes(flipped)
    return [*data[:at], one, *data[at + 1 :]]
