"""How long it takes until a change is in force: from the API's answer to the last packet that was treated as before.

Law: alone on the machine. Each moment is told by packets: what was allowed by the last datagram that was answered, what
was forbidden by the first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest

from tests.policy.cluster import Cluster
from tests.policy.probing import Cell, Prober
from tests.policy.written import ALL, pods, policy

pytestmark = [pytest.mark.root, pytest.mark.alone]

EFFECTIVE_SECONDS = 0.1
WORST_SECONDS = 0.25
"""Of a few trials on a machine whose processors are others', too."""
TRIALS = 8
STEP_SECONDS = 0.005
FRIENDS = policy("x", ALL, ingress=[{"from": [{"namespaceSelector": ALL, "podSelector": pods(role="friend")}]}])
FRIENDLY = policy("x", ALL, ingress=[{"from": [{"namespaceSelector": pods(mood="friendly")}]}])


def seconds_until(prober: Prober, cell: Cell, is_open: bool) -> float:
    """From now on, until it is so and stays so for a while."""
    began = time.monotonic()
    last_wrong = began
    while time.monotonic() < last_wrong + (0.05 if is_open else 0.3):
        asked = time.monotonic()
        if prober.opens(cell, quiet=STEP_SECONDS if not is_open else 2 * STEP_SECONDS) != is_open:
            last_wrong = asked
        assert last_wrong - began < 5, f"{cell} is not {'open' if is_open else 'closed'}"
    return last_wrong - began


def measure(live: tuple[Cluster, Prober], change: Callable[[bool], None], source: str) -> list[float]:
    found, prober = live
    cell = Cell(source, found.addresses["x/a"], "UDP", 80)
    taken = []
    for trial in range(TRIALS):
        change(trial % 2 == 0)
        taken.append(seconds_until(prober, cell, is_open=trial % 2 == 0))
    return taken


def check(taken: list[float]) -> None:
    said = f"{[round(one * 1000) for one in taken]} ms"
    assert statistics.median(taken) <= EFFECTIVE_SECONDS, said
    assert max(taken) <= WORST_SECONDS, said


@pytest.mark.parametrize("source", ["y/b", "z/b"])
def test_labels_of_a_pod(live: tuple[Cluster, Prober], source: str) -> None:
    live[0].enforce(FRIENDS)
    check(measure(live, lambda friend: live[0].label_pod(source, role="friend" if friend else "stranger"), source))


def test_labels_of_a_namespace(live: tuple[Cluster, Prober]) -> None:
    live[0].enforce(FRIENDLY)
    check(measure(live, lambda on: live[0].label_namespace("z", mood="friendly" if on else "sullen"), "z/b"))


def test_a_policy(live: tuple[Cluster, Prober]) -> None:
    edits = {True: policy("x", ALL, ingress=[ALL]), False: policy("x", ALL, ingress=[])}
    check(measure(live, lambda on: live[0].plant(edits[on]), "z/b"))


def test_one_pod_is_added(live: tuple[Cluster, Prober]) -> None:
    """On the other node: from the API's answer that it has an address."""
    found, prober = live
    found.enforce(FRIENDS)
    taken = []
    for number in range(4):
        pod = found.add_pod("z", f"new{number}", found.hosts[1], {"role": "friend"}, told=False)
        prober.add(pod.key, pod.attached.namespace)
        cell = Cell(pod.key, found.addresses["x/a"], "UDP", 80)
        assert not prober.opens(cell)
        found.plant(pod.thing())
        taken.append(seconds_until(prober, cell, is_open=True))
        prober.remove(pod.key)
        found.delete_pod(pod)
    check(taken)
