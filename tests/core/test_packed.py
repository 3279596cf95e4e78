"""What others wrote is a value or a ProtocolError, however deep it nests: every decoder of the core is asked."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.core.test_dial import local
from tunrouter.core import asking, bounds, elector, electorate, record, seam, versions, wire
from tunrouter.core.electorate import Elector
from tunrouter.core.journal import Journal
from tunrouter.core.outbox import Outbox
from tunrouter.core.registers import Ballot
from tunrouter.errors import ProtocolError

DEEP = b"\x91" * 1060 + b"\xc0"
"""An array in an array in an array … of nothing."""


def control(body: bytes) -> object:
    return wire.decode_control(struct.pack(">H", len(body)) + body)


def links(more: bytes) -> object:
    who = local(1)
    data = struct.pack(">B32sQQ", record.LINKS, who.identity.public_key, 7, 1) + b"\x93\x02\x90" + more + bytes(64)
    return record.read(data)


PARSERS: dict[str, Callable[[bytes], object]] = {
    "body": lambda more: control(b"\x92\x0b" + more),
    "question": lambda more: control(b"\x99\x0c\x01\x02\x03\x93\x00\x00\x00\x90\xc2\xc4\x00" + more),
    "answer": lambda more: control(b"\x96\x0d\x01\x02\x03\x90" + more),
    "later": lambda more: control(b"\x92\x63" + more),
    "introduction": lambda more: wire.decode_introduction(b"\x95\xa1a\xc4\x00\xc2\xc0" + more),
    "record": links,
    "configuration": lambda more: electorate.decode(b"\x95\x01\x01\x91\x92\x01\x02\xc2" + more),
    "to worker": lambda more: seam.decode_to_worker(b"\x93" + seam.encode(seam.Retire(5))[1:] + more),
    "to control": lambda more: seam.decode_to_control(b"\x93" + seam.encode(seam.HopWanted(5))[1:] + more),
}
"""Each with one element more than this version knows."""


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_what_nests_too_deep_is_malformed(parser: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_RECORD_BYTES", 2000)  # the deeper the caller's stack is, the less is too deep
    with pytest.raises(ProtocolError):
        parser(DEEP)


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_what_nests_a_little_is_passed_over(parser: Callable[[bytes], object]) -> None:
    parser(b"\x91" * 20 + b"\xc0")


def test_a_body_that_nests_too_deep_is_of_no_later_version() -> None:
    assert not versions.is_later(b"\x92\x63" + DEEP, {1})


@pytest.mark.parametrize("data", [b"\x94\x94\x01\x01\x91\x92\x01\x02\xc2\x01\x01" + DEEP, b""])
def test_an_elector_counts_what_is_no_activation(data: bytes) -> None:
    out = Outbox()
    booth = elector.Booth(Elector(1, 2), Journal(), out, lambda new, now: None)
    ask = asking.RegisterAsk(1, 7, asking.ACTIVATE, Ballot(0, 0, 0), (), data=data)
    booth.hear(9, ask, lambda tell: None, 0.0)
    assert out.counters == {"register_malformed": 1}
