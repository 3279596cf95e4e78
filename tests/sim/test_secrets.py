"""Secrets are changed while nodes run: what is accepted, what seals, and that sessions stand through all of it."""

from __future__ import annotations

import pytest

from tests.sim.internet import Host, Internet, psk
from tests.sim.test_liveness import accusations
from tests.sim.test_two_nodes import pair
from tunrouter.core import bounds, keys, wire
from tunrouter.core.handshake import Suite, prologue
from tunrouter.errors import ProtocolError

RENEWAL = bounds.REKEY_SECONDS + 15
"""Longer than any keys are in use before they are renewed."""


@pytest.fixture
def internet() -> Internet:
    return Internet()


def use(host: Host, *secrets: str) -> None:
    """What a reload does: the agent derives the keys and hands them to the node that runs."""
    host.secrets = secrets
    host.carry_out(host.node.use_secrets(keys.KeyRing(tuple(psk(secret) for secret in secrets)), host.internet.now))


def keys_of(host: Host, peer: Host) -> object:
    session = host.session(peer)
    assert session is not None
    return session.current


def chat(internet: Internet, a: Host, b: Host, seconds: float) -> None:
    """Both say something every second, and each word arrives."""
    a.tun.written.clear()
    b.tun.written.clear()
    words = [b"%d" % second for second in range(int(seconds))]
    for word in words:
        a.send("10.32.2.2", word)
        b.send("10.32.1.2", word)
        internet.run(1)
    assert a.payloads == b.payloads == words


def made_with(first: bytes, secret: str) -> bool:
    try:
        ring = keys.KeyRing((psk(secret),))
        Suite(prologue(True, "weave"), ring.handshake_psks[0]).read_first(first[wire.HEADER_BYTES :])
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize("first_to_move", [0, 1])
def test_a_secret_is_replaced_while_sessions_stand_through_every_renewal(
    internet: Internet, first_to_move: int
) -> None:
    hosts = pair(internet, secrets=("old",))
    a, b = hosts
    one, other = hosts[first_to_move], hosts[1 - first_to_move]
    steps = [
        (one, ("old", "new")),
        (other, ("old", "new")),
        (one, ("new", "old")),
        (other, ("new", "old")),
        (one, ("new",)),
        (other, ("new",)),
    ]
    for host, secrets in steps:
        before = keys_of(a, b)
        use(host, *secrets)
        assert keys_of(a, b) is before, "sessions that stand are not touched"
        chat(internet, a, b, RENEWAL)
        assert keys_of(a, b) is not before
    assert accusations(a) == accusations(b) == []
    assert len(internet.firsts()) == 1, "all renewals went inside the session"
    assert not [line for host in hosts for line in host.log if "password" in line]


def test_the_first_secret_seals_and_all_are_accepted(internet: Internet) -> None:
    a = internet.host("a", 1, secrets=("new", "middle", "old"))
    for number, secret in enumerate(("old", "middle", "new"), 2):
        peer = internet.host(secret, number, secrets=(secret,))
        peer.connect(a)
        internet.until(lambda peer=peer: a.established(peer), 2)  # type: ignore[misc]
        assert made_with(internet.firsts()[-1], secret)
    began = len(internet.wire)
    a.connect(internet.host("late", 9, secrets=("old", "new")))
    internet.run(1)
    (first,) = internet.firsts(began)
    assert [secret for secret in ("old", "middle", "new") if made_with(first, secret)] == ["new"]


def test_who_kept_the_old_secret_is_out_after_its_keys_expire_and_is_told_why(internet: Internet) -> None:
    a, b = pair(internet, secrets=("old",))
    use(a, "new")
    chat(internet, a, b, bounds.REKEY_SECONDS - 5)
    internet.run(bounds.REJECT_SECONDS)
    b.tun.written.clear()
    a.send("10.32.2.2", b"never")
    internet.run(10)
    assert not a.established(b)
    assert b.payloads == []
    assert any(row.reason == "wrong password" for row in a.connections())
    use(b, "new")
    internet.until(lambda: a.established(b) and b.established(a), 10)


def test_a_stranger_with_a_removed_secret_is_refused_at_once(internet: Internet) -> None:
    a, b = pair(internet, secrets=("old", "new"))
    use(a, "new")
    late = internet.host("late", 3, secrets=("old",))
    late.connect(a)
    internet.run(3)
    assert not a.established(late)
    assert [row.reason for row in late.connections()] == ["wrong password"]
    assert a.established(b)


def test_a_change_in_the_middle_of_a_handshake_delays_it_only(internet: Internet) -> None:
    """The answer to a message that was sealed with a secret which is gone by then still opens; or a new one does."""
    for at in (0.002, 0.007, 0.012):
        world = Internet()
        a, b = world.host("a", 1, secrets=("old",)), world.host("b", 2, secrets=("old", "new"))
        a.connect(b)
        world.run(at)
        use(a, "new")
        world.until(lambda a=a, b=b: a.established(b) and b.established(a), 8)  # type: ignore[misc]
