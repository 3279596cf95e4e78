"""MessagePack that others wrote.

Law: whatever the bytes are, they are a value or a ProtocolError, which its caller counts. A decoder has three ways to
refuse: they are no message, a text in them is no UTF-8, or they nest deeper than it follows, be it in fields of a later
version that nobody reads here.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tunrouter.errors import ProtocolError

Value = TypeVar("Value")


def read(decoder: msgspec.msgpack.Decoder[Value], data: bytes, what: str) -> Value:
    """Raises ProtocolError, which begins with `what` they should be."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{what}: {error}") from None
