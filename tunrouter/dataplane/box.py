"""NaCl's box on the packets' own memory, through the functions and pointers of PyNaCl's module.

The padded `crypto_secretbox` makes one Salsa20 pass where `_easy` makes two. It wants 32 zero bytes before the message
and leaves 16 zeros and the tag there: just the room of our header and tag, so a datagram is sealed in its final place.

    message  | 32 zeros                        | kind | inner packet
    datagram | header, written last | tag 16   | sealed

In plaintext mode the tag is a session cookie and the rest clear; these two functions have the same signature, so that
the loops do not know which mode they run in. (Keeping the HSalsa20 subkey saves 100 ns a packet in C and
costs 600 here: it takes two calls through pointers instead of one.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from tunrouter.core.wire import HEADER_BYTES, TAG_BYTES
from tunrouter.dataplane.kernel import Memory
from tunrouter.dataplane.sodium import ffi, lib, library

Pointer = Any
"""A cffi `unsigned char *`."""
Box = Callable[[Pointer, Pointer, int, Pointer, Pointer], int]
"""`(to, from, size, nonce, key)`, sizes and offsets those of the whole datagram; 0 is success."""

_CLEAR: Final = HEADER_BYTES + TAG_BYTES

seal: Final[Box] = lib.crypto_secretbox
open_box: Final[Box] = lib.crypto_secretbox_open

_equal = library.sodium_memcmp
_equal.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def pointer(buffer: Memory) -> Pointer:
    """The address of `buffer`, which it keeps alive and from being resized."""
    return ffi.from_buffer("unsigned char[]", buffer)


def address(place: Pointer) -> int:
    return int(ffi.cast("uintptr_t", place))


def put_cookie(to: Pointer, message: Pointer, size: int, _nonce: Pointer, cookie: Pointer) -> int:
    ffi.memmove(to + _CLEAR, message + _CLEAR, size - _CLEAR)
    ffi.memmove(to + HEADER_BYTES, cookie, TAG_BYTES)
    return 0


def check_cookie(_to: Pointer, datagram: Pointer, _size: int, _nonce: Pointer, cookie: Pointer) -> int:
    """In constant time. In place only."""
    return int(_equal(address(datagram + HEADER_BYTES), address(cookie), TAG_BYTES))
