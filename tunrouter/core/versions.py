"""Which versions of the protocol this build speaks, and what it makes of things that only a later one knows.

Law: every build speaks its newest version and the one before (N and N-1), so a cluster is brought from one build to the
next node by node. The initiator says its newest inside the handshake's box, the responder chooses the newest that both
speak, and what a version adds is only said where that was chosen, or where others pass over it: fields are appended,
kinds of control bodies get numbers of their own, records of unknown kinds are passed on. Nothing is negotiated in the
clear, so nobody on the way can choose an old one.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

import msgspec

from tunrouter.core import packed
from tunrouter.errors import ProtocolError

NEWEST: Final = 1
OLDEST: Final = max(1, NEWEST - 1)
SPOKEN: Final = " and ".join(str(version) for version in range(OLDEST, NEWEST + 1))


def common(newest: int) -> int | None:
    """What this build speaks with a peer whose newest version is `newest`; None if there is nothing."""
    return min(newest, NEWEST) if newest >= OLDEST and newest - 1 <= NEWEST else None


class _Numbered(msgspec.Struct, frozen=True, array_like=True):
    """What all control bodies have in common: the first element says of which kind they are."""

    kind: int


_numbered = msgspec.msgpack.Decoder(_Numbered)


def is_later(body: bytes, known: Set[int]) -> bool:
    """Whether it has the form of a control body, of a kind that is not `known`."""
    try:
        return packed.read(_numbered, body, "control body").kind not in known
    except ProtocolError:
        return False
