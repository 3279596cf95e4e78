"""What proposers and electors say to each other about registers.

Law: a question is said again under its number until it is answered, so every one of them may be asked twice.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tunrouter.core.registers import PAGE, Ballot, Item
from tunrouter.errors import ProtocolError


class RegisterAsk(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """To an elector, see registers.py; `verb` is one of those below. Said again under its id until it is answered."""

    id: int
    cluster: int
    verb: int
    ballot: Ballot
    """Its epoch says whose electors are meant."""
    items: tuple[Item, ...]
    final: bool = False
    """Only settles what is undecided in an epoch that is frozen."""
    data: bytes = b""


class RegisterTell(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """An elector's answer, of what is on its disk."""

    id: int
    verdict: int
    round: int
    items: tuple[Item, ...]


FIRST_QUESTION: Final = 1 << 63
"""Ids below are of rounds, and those from here on of questions to one elector."""
PREPARE: Final = 1
ACCEPT: Final = 2
READ: Final = 3
"""What was accepted, of the registers named."""
FIND: Final = 4
"""Registers after the first item's name that its value's holder has."""
SCAN: Final = 5
"""All registers after the second item's name; the first is the next epoch's, which is chosen and freezes this one."""
COPY: Final = 6
"""Keep these for the epoch that `data` names."""
ACTIVATE: Final = 7
"""Begin the epoch that `data` names, with what was copied."""

RegisterBody = RegisterAsk | RegisterTell


def check_registers(body: RegisterBody) -> None:
    """Raises ProtocolError for numbers that are none, or too many registers."""
    numbers = [body.id]
    for item in body.items:
        numbers += [*item.name, *item.ballot, *item.value[:2]]
    if isinstance(body, RegisterAsk):
        numbers += [body.cluster, body.verb, *body.ballot]
    if len(body.items) > PAGE or not all(0 <= number < 1 << 64 for number in numbers):
        raise ProtocolError("registers")
