"""Our own ciphers make what libsodium makes, touch no byte more, and give way to libsodium when they do not or cannot.

Here they are called as box.c calls them, through a `tr_nacl`. On a processor without their instructions there is
nothing to compare; the first test says whether there should be.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.dataplane.frames import udp
from tests.dataplane.pair import joined
from tunrouter.core import wire
from tunrouter.dataplane import compiled
from tunrouter.dataplane._kernel import ffi, lib

PAGE: Final = mmap.PAGESIZE
ROOM: Final = 32 * PAGE
P: Final = (1 << 130) - 5
CLAMP: Final = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
FULL: Final = (1 << 128) - 1
STREAM_SIZES: Final = (*range(lib.TR_WIDE_STREAM_FROM, 2101), 8_933, 65_568)
TAG_SIZES: Final = (*range(lib.TR_WIDE_TAG_FROM, 2101), 8_901, 65_536)
FLAGS: Final = {"avx512f", "avx512bw", "avx512vl", "avx512ifma"}

NACL: Final = compiled.open_nacl()

libc = ctypes.CDLL(None, use_errno=True)


class Fenced:
    """Memory between two pages that nobody may touch."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, ROOM + 2 * PAGE)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for fence in (self._at, self._at + PAGE + ROOM):
            assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(PAGE), 0) == 0

    def at(self, offset: int) -> Any:
        return ffi.cast("uint8_t *", self._at + PAGE + offset)

    def put(self, data: bytes, offset: int) -> Any:
        ffi.memmove(self.at(offset), data, len(data))
        return self.at(offset)


ONE, TWO = Fenced(), Fenced()


def places(size: int) -> Iterator[tuple[int, int]]:
    """Where to put two buffers: both at the first fence, both at the last, and apart by chance."""
    yield 0, 0
    yield ROOM - size, ROOM - size
    yield draw.randrange(min(ROOM - size, 200)), draw.randrange(min(ROOM - size, 200))


draw = random.Random(1)


def cipher(text: bytes, nonce: bytes, key: bytes, function: Any, places: tuple[int, int]) -> bytes:
    """The bytes around the result must stay as they were."""
    size = len(text)
    low, high = max(places[1] - 64, 0), min(places[1] + size + 64, ROOM)
    TWO.put(b"\xa5" * (high - low), low)
    assert function(TWO.at(places[1]), ONE.put(text, places[0]), size, nonce, key) == 0
    made = bytes(ffi.buffer(TWO.at(low), high - low))
    before, after = made[: places[1] - low], made[places[1] - low + size :]
    assert not (before + after).strip(b"\xa5")
    return made[len(before) : len(before) + size]


def tag(message: bytes, key: bytes, function: Any, place: int) -> bytes:
    made = ffi.new("uint8_t[16]")
    assert function(made, ONE.put(message, place), len(message), key) == 0
    return bytes(made)


def check_tag(message: bytes, key: bytes) -> None:
    right = tag(message, key, NACL.authenticate, 0)
    for place in {0, ROOM - len(message), draw.randrange(64)}:
        if place + len(message) <= ROOM and NACL.wide_authenticate:
            assert tag(message, key, NACL.wide_authenticate, place) == right


def test_the_processors_own_flags_say_what_it_can_run() -> None:
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    wide = lib.TR_WIDE_STREAM | lib.TR_WIDE_TAG if set(flags.split()) >= FLAGS else 0
    assert lib.tr_wide() == wide
    assert bool(NACL.wide_stream_xor) == bool(NACL.wide_authenticate) == bool(wide)


@pytest.mark.parametrize("ones", [False, True])
def test_the_stream_is_libsodiums_at_every_length_and_place(ones: bool) -> None:
    for size in STREAM_SIZES if NACL.wide_stream_xor else ():
        text, nonce, key = (b"\xff" * n if ones else draw.randbytes(n) for n in (size, 8, 32))
        right = cipher(text, nonce, key, NACL.stream_xor, (0, 0))
        for at in places(size):
            assert cipher(text, nonce, key, NACL.wide_stream_xor, at) == right


def test_the_tag_is_libsodiums_at_every_length_and_place() -> None:
    for size in TAG_SIZES:
        check_tag(draw.randbytes(size), draw.randbytes(32))


@pytest.mark.parametrize("r", [0, 1, 2, 4, 5, CLAMP, CLAMP - 1, 1 << 44, 1 << 88, 1 << 123, 0x0FFFFFFC << 96])
@pytest.mark.parametrize("s", [0, 1, FULL])
def test_the_tag_is_libsodiums_for_numbers_that_carry_far(r: int, s: int) -> None:
    key = (r & CLAMP).to_bytes(16, "little") + s.to_bytes(16, "little")
    for size in (*range(129, 290), 1376, 1377, 1408, 1409, 8901):
        check_tag(b"\xff" * size, key)
        check_tag(bytes(size), key)
        check_tag(draw.choice((b"\xff", b"\0")) * (size - 16) + b"\xfb" + b"\xff" * 15, key)


def value(blocks: list[int], r: int) -> int:
    """The polynomial, by the letter of RFC 8439."""
    h = 0
    for block in blocks:
        h = (h + block + (1 << 128)) * r % P
    return h


def message_of(target: int, r: int, count: int) -> bytes:
    """`count` blocks whose polynomial at r is `target`: the last one is what is missing, if it is one at all."""
    while True:
        blocks = [draw.getrandbits(128) for _ in range(count - 1)]
        last = (target * pow(r, -1, P) - value(blocks, r)) % P - (1 << 128)
        if 0 <= last <= FULL:
            assert value([*blocks, last], r) == target
            return b"".join(block.to_bytes(16, "little") for block in [*blocks, last])


@pytest.mark.parametrize("target", [*range(8), *range(P - 8, P), FULL, FULL + 1, 1 << 129])
def test_the_tag_is_right_where_the_last_reduction_decides(target: int) -> None:
    """A result below 5 may stand there as one of p to 2^130 - 1, one just below p must not be taken for those."""
    for s in (0, FULL, draw.getrandbits(128)):
        for count in (9, 15, 16, 17, 86, 88):
            r = draw.choice((1, 4, CLAMP, draw.getrandbits(128) & CLAMP or 1))
            message, key = message_of(target, r, count), r.to_bytes(16, "little") + s.to_bytes(16, "little")
            check_tag(message, key)
            assert tag(message, key, NACL.authenticate, 0) == (target + s & FULL).to_bytes(16, "little")


@pytest.mark.soak
def test_a_million_boxes_are_libsodiums() -> None:
    for _ in range(1_000_000):
        size = draw.randrange(lib.TR_WIDE_TAG_FROM, 2101)
        check_tag(draw.randbytes(size), draw.randbytes(32))


# --- boxes --------------------------------------------------------------------------------------------------------


def test_boxes_of_every_size_pass_between_the_kernels(kernel: str) -> None:
    """From every packet that fits to what it was before, sealed here and opened by libsodium, and the other way."""
    one, two = joined(kernel)
    for size in range(2_060):
        frame = udp(draw.randbytes(size))
        [datagram] = one.send(frame)
        [(kind, body)] = two.opened([datagram])
        assert (kind, body) == (wire.PACKET_PARTIAL, frame[10:])
        [written] = two.receive(one.forge(kind, body, size))
        assert written[10:] == frame[10:]


@pytest.mark.parametrize("size", [100, 200, 1_328])
def test_a_box_with_any_wrong_byte_is_not_opened(kernel: str, size: int) -> None:
    one, two = joined(kernel)
    [datagram] = one.send(udp(draw.randbytes(size)))
    for at in range(wire.HEADER_BYTES, len(datagram)):
        wrong = bytearray(datagram)
        wrong[at] ^= 1 << draw.randrange(8)
        assert two.receive(bytes(wrong)) == []
    assert two.count("drop_tag") == len(datagram) - wire.HEADER_BYTES
    assert len(two.receive(datagram)) == 1


# --- who may use them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [0, lib.TR_WIDE_STREAM, lib.TR_WIDE_TAG])
def test_what_is_not_asked_for_is_libsodiums(wide: int) -> None:
    table = compiled.open_nacl(wide)
    found = (lib.TR_WIDE_STREAM if table.wide_stream_xor else 0) | (lib.TR_WIDE_TAG if table.wide_authenticate else 0)
    assert found == wide & lib.tr_wide()


def test_without_libsodiums_halves_there_is_nothing_to_compare_with_and_none_are_used() -> None:
    table = compiled.open_nacl()
    table.stream_xor = table.authenticate = ffi.NULL
    compiled.widen(table, lib.tr_wide())
    assert not table.wide_stream_xor
    assert not table.wide_authenticate


def spoiled(field: str, right: Any, at: int) -> Callable[..., int]:
    def call(to: Any, *arguments: Any) -> int:
        code: int = right(to, *arguments)
        to[at] ^= 1
        return code

    made: Callable[..., int] = ffi.callback(ffi.typeof(getattr(NACL, field)), call)
    return made


@pytest.mark.parametrize(
    ("field", "name", "bit"),
    [("stream_xor", "Salsa20", lib.TR_WIDE_STREAM), ("authenticate", "Poly1305", lib.TR_WIDE_TAG)],
)
def test_one_that_differs_from_libsodium_is_not_used_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, field: str, name: str, bit: int
) -> None:
    table = compiled.open_nacl()
    other = spoiled(field, getattr(table, field), 15)
    setattr(table, field, other)
    compiled.widen(table, lib.tr_wide())
    assert not getattr(table, f"wide_{field}")
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == bool(lib.tr_wide() & bit)
    assert all("SLOW" in record.message and name in record.message for record in records)
