"""Peers as users write them, to endpoints in their canonical text."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tunrouter.agent.resolve import literal, resolve
from tunrouter.bench.namespaces import PREFIX, Namespace, owner


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


async def look_up(peer: str, *addresses: str) -> tuple[tuple[str, int] | None, str]:
    """As if DNS knew these addresses of it."""

    async def found(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        return await resolve(peer, 6783)


@pytest.mark.root
@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        (["::1"], "::1"),
        (["::1", "127.0.0.2", "127.0.0.1"], "127.0.0.1"),
        (["fe80::1", "::1"], "::1"),
        (["192.0.2.7", "::1"], "::1"),
        (["192.0.2.7", "2001:db8::7"], "192.0.2.7"),
    ],
)
def test_of_a_names_addresses_one_is_taken_that_a_route_leads_to(addresses: list[str], chosen: str) -> None:
    """In a namespace that has nothing but loopback."""
    namespace = Namespace(f"{PREFIX}-{owner()}-resolve")
    namespace.create()
    try:
        asked = f"asyncio.run(look_up('n.example', *{addresses}))"
        program = f"import asyncio; from {__name__} import look_up; print({asked})"
        assert namespace.run(sys.executable, "-c", program).stdout.strip() == f"(('{chosen}', 6783), '')"
    finally:
        namespace.delete()


def test_a_name_with_link_local_addresses_alone_is_none() -> None:
    endpoint, reason = asyncio.run(look_up("printer.local", "fe80::1"))
    assert endpoint is None
    assert reason == "cannot resolve printer.local: no address but link-local ones"
