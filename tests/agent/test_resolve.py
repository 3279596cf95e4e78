"""Peers as users write them, to endpoints in their canonical text."""

from __future__ import annotations

import asyncio

import pytest

from tunrouter.agent.resolve import literal, resolve


@pytest.mark.parametrize(
    ("peer", "endpoint"),
    [
        ("192.0.2.7", ("192.0.2.7", 6783)),
        ("192.0.2.7:7000", ("192.0.2.7", 7000)),
        ("[2001:DB8:0::7]:7000", ("2001:db8::7", 7000)),
        ("[2001:db8::7]", ("2001:db8::7", 6783)),
        ("2001:db8::7", ("2001:db8::7", 6783)),
    ],
)
def test_literals_need_no_look_up(peer: str, endpoint: tuple[str, int]) -> None:
    assert asyncio.run(resolve(peer, 6783)) == (endpoint, "")
    assert literal(peer, 6783) == endpoint


def test_names_are_looked_up_and_prefer_ipv4() -> None:
    assert asyncio.run(resolve("localhost:99", 6783)) == (("127.0.0.1", 99), "")
    assert literal("localhost", 6783) is None


def test_a_name_that_does_not_resolve_says_so() -> None:
    endpoint, reason = asyncio.run(resolve("no-such-host.invalid", 6783))
    assert endpoint is None
    assert reason.startswith("cannot resolve no-such-host.invalid: ")
