"""The search for the highest rate, over tunnels that are formulas."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.bench import instruments
from tunrouter.bench.contender import End
from tunrouter.bench.datagrams import Counted, Sent
from tunrouter.bench.instruments import Trial
from tunrouter.bench.namespaces import Namespace
from tunrouter.bench.search import highest_rate
from tunrouter.errors import HostError

SECONDS = 1.0


def tunnel(capacity: float, *, sender: float = 1e9, trials: list[float] | None = None) -> Callable[[float], Trial]:
    """Carries `capacity` a second and loses the rest, from a sender that manages `sender` a second."""

    def trial(rate: float) -> Trial:
        if trials is not None:
            trials.append(rate)
        sent = round(min(rate, sender) * SECONDS)
        return Trial(rate, sent, min(sent, round(capacity * SECONDS)), 0, SECONDS)

    return trial


@given(st.floats(200, 2e6), st.sampled_from([0.01, 0.03, 0.1]))
def test_it_finds_what_a_tunnel_carries(capacity: float, resolution: float) -> None:
    found = highest_rate(tunnel(capacity), resolution=resolution).delivered
    assert capacity / (1 + resolution) * 0.99 <= found <= capacity * 1.001


def test_it_takes_few_trials() -> None:
    trials: list[float] = []
    highest_rate(tunnel(143_000, trials=trials), resolution=0.03)
    assert len(trials) <= 16


def test_a_sender_at_its_own_end_ends_the_search() -> None:
    trials: list[float] = []
    found = highest_rate(tunnel(1e9, sender=250_000, trials=trials), resolution=0.03)
    assert found.delivered == 250_000
    assert max(trials) == 512_000


def test_a_sender_that_was_held_up_once_is_not_at_its_end() -> None:
    calm, held_up = tunnel(100_000), tunnel(100_000, sender=10_000)
    count = 0

    def disturbed(rate: float) -> Trial:
        nonlocal count
        count += 1
        return held_up(rate) if count % 2 else calm(rate)

    assert highest_rate(disturbed, resolution=0.03).delivered > 97_000


def test_one_disturbed_trial_does_not_count() -> None:
    """Every third trial loses much; none is disturbed twice in a row."""
    calm = tunnel(100_000)
    count = 0

    def disturbed(rate: float) -> Trial:
        nonlocal count
        count += 1
        trial = calm(rate)
        return Trial(rate, trial.sent, trial.received // 2, 0, SECONDS) if count % 3 == 0 else trial

    assert highest_rate(disturbed, resolution=0.03).delivered > 97_000


def test_a_tunnel_that_always_loses_is_an_error() -> None:
    def lossy(rate: float) -> Trial:
        sent = round(rate)
        return Trial(rate, sent, round(sent * 0.9), 0, SECONDS)

    with pytest.raises(HostError, match=r"more than 0\.5% of the datagrams are lost at any rate"):
        highest_rate(lossy, resolution=0.03)


def test_half_a_percent_is_the_limit() -> None:
    noise = random.Random(1)

    def slightly_lossy(rate: float) -> Trial:
        sent = round(min(rate, 300_000))
        return Trial(rate, sent, sum(noise.random() > 0.001 for _ in range(sent)), 0, SECONDS)

    assert highest_rate(slightly_lossy, resolution=0.1).delivered == pytest.approx(300_000, rel=0.01)


def test_what_was_only_stored_has_not_been_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second's datagrams that took two seconds to come out are half the rate."""

    class Receiver:
        def __enter__(self) -> Receiver:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def terminate(self) -> None:
            pass

        def communicate(self, timeout: float) -> tuple[bytes, None]:
            del timeout
            return msgspec.json.encode(Counted(received=1000, seconds=2.0, overrun=0)), None

    monkeypatch.setattr(instruments, "_instrument", lambda *_: Receiver())
    monkeypatch.setattr(instruments, "_finish", lambda *_: Sent(sent=1000, seconds=1.0))
    one, two = (End(Namespace("none"), "10.0.0.1") for _ in range(2))
    trial = instruments.send_datagrams(one, two, size=64, rate=1000, seconds=1.0)
    assert (trial.lost, trial.delivered) == (0.0, 500.0)


def test_a_trial_without_a_datagram_has_lost_all() -> None:
    assert Trial(1, 0, 0, 0, 1.0).lost == 1.0
