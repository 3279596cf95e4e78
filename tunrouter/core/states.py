"""The life of a session as a table: what may happen in which state, what follows, and what is done about it.

    closed ──wanted──> opening ──adopted──> established <──adopted── rekeying
      ^                  ^                    │    │  ^                  ^
      │                  │            silent  │    │  └──heard──┐        │
      └─idle, farewell───┼────────────────────┘    └─rekey──────┼────────┘
                         └──dead, expired── suspect <───────────┘

A detour leads back to established: the session goes on, by relay.

Law: a pair of state and event that is not in the table changes nothing. An action is the name of a `Session` method.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    CLOSED = "closed"
    OPENING = "opening"
    ESTABLISHED = "established"
    REKEYING = "rekeying"
    SUSPECT = "suspect"


STANDING: Final = (State.ESTABLISHED, State.REKEYING, State.SUSPECT)
"""There are keys that are sealed with."""


class Event(Enum):
    WANTED = "packets wait, or the operator wants this peer"
    ADOPTED = "a handshake came to its end"
    REKEY = "the keys are old"
    SILENT = "nothing came for a while"
    HEARD = "something came after all"
    DEAD = "nothing came for too long"
    EXPIRED = "the keys are too old to be used"
    IDLE = "nobody uses the session"
    DETOUR = "the direct way is dead, the way by relay is not"
    FAREWELL = "the peer said that it goes"
    GAVE_UP = "nobody answers"


TABLE: Final[dict[tuple[State, Event], tuple[State, str]]] = {
    (State.CLOSED, Event.WANTED): (State.OPENING, "dial"),
    (State.CLOSED, Event.ADOPTED): (State.ESTABLISHED, "renew"),
    (State.OPENING, Event.WANTED): (State.OPENING, "dial"),
    (State.OPENING, Event.ADOPTED): (State.ESTABLISHED, "renew"),
    (State.OPENING, Event.GAVE_UP): (State.CLOSED, "rest"),
    (State.ESTABLISHED, Event.ADOPTED): (State.ESTABLISHED, "renew"),
    (State.ESTABLISHED, Event.REKEY): (State.REKEYING, "dial"),
    (State.ESTABLISHED, Event.SILENT): (State.SUSPECT, "dial"),
    (State.ESTABLISHED, Event.EXPIRED): (State.OPENING, "reopen"),
    (State.ESTABLISHED, Event.IDLE): (State.CLOSED, "leave"),
    (State.ESTABLISHED, Event.FAREWELL): (State.CLOSED, "drop"),
    (State.REKEYING, Event.ADOPTED): (State.ESTABLISHED, "renew"),
    (State.REKEYING, Event.SILENT): (State.SUSPECT, "dial"),
    (State.REKEYING, Event.EXPIRED): (State.OPENING, "reopen"),
    (State.REKEYING, Event.IDLE): (State.CLOSED, "leave"),
    (State.REKEYING, Event.FAREWELL): (State.CLOSED, "drop"),
    (State.SUSPECT, Event.ADOPTED): (State.ESTABLISHED, "renew"),
    (State.SUSPECT, Event.HEARD): (State.ESTABLISHED, "rest"),
    (State.ESTABLISHED, Event.DETOUR): (State.ESTABLISHED, "detour"),
    (State.REKEYING, Event.DETOUR): (State.ESTABLISHED, "detour"),
    (State.SUSPECT, Event.DETOUR): (State.ESTABLISHED, "detour"),
    (State.SUSPECT, Event.DEAD): (State.OPENING, "reopen"),
    (State.SUSPECT, Event.EXPIRED): (State.OPENING, "reopen"),
    (State.SUSPECT, Event.IDLE): (State.CLOSED, "leave"),
    (State.SUSPECT, Event.FAREWELL): (State.CLOSED, "drop"),
}
