"""libsodium as PyNaCl brings it, made ready: its functions for Python, and itself for whoever wants their addresses.

Law: `sodium_init` comes before any box. Without it all is right and slow, for libsodium then keeps to the code that
runs on every processor: a box takes twice as long. PyNaCl calls it with `nacl.bindings`, which a worker does not need.
"""

from __future__ import annotations

import ctypes
from typing import Final

import nacl._sodium
from nacl._sodium import ffi, lib

from tunrouter.errors import HostError

__all__ = ["ffi", "lib", "library"]

if lib.sodium_init() < 0:
    raise HostError("libsodium does not start", "reinstall PyNaCl")

library: Final = ctypes.CDLL(nacl._sodium.__file__)
