"""What somebody breaks of a running node's set-up while its pods talk: it is there again within two seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until

pytestmark = pytest.mark.root

REPAIRED_SECONDS = 2.0
TUN = "tunrouter0"
BREAKS = {
    "the TUN deleted": ("ip", "link", "delete", TUN),
    "the TUN down": ("ip", "link", "set", TUN, "down"),
    "the TUN without its address": ("ip", "-4", "address", "flush", "dev", TUN),
    "the route gone": ("ip", "route", "flush", "10.32.0.0/12"),
    "the bridge down": ("ip", "link", "set", "weave", "down"),
    "the rules gone": ("nft", "flush", "ruleset"),
}


@pytest.fixture
def workers() -> int:
    return 1


@pytest.fixture
def kernel() -> str:
    return "compiled"


@pytest.fixture
def lab(secret: str, workers: int, kernel: str) -> Iterator[Lab]:
    with Lab(hosts=2, offloads="off") as lab:
        for host in lab.hosts:
            host.agent.extra_environment = {"TUNROUTER_KERNEL": kernel}
        lab.start_agents("--workers", str(workers), password=secret)
        for host in lab.hosts:
            host.add_pod("a")
        assert lab.hosts[0].agent.snapshot().kernel == kernel
        yield lab


def device(lab: Lab) -> list[str]:
    """What was set up of it."""
    said = lab.hosts[0].namespace.run("ip", "-d", "link", "show", TUN).stdout
    return re.findall(r"\bUP\b(?=[,>])|mtu \d+|qlen \d+|vnet_hdr on|multi_queue|persist on", said)


def repaired(lab: Lab, *command: str) -> float:
    """Seconds until pods reach each other again, both ways."""
    (one, other), broken = (host.pods[0] for host in lab.hosts), lab.hosts[0].namespace
    assert one.ping(other.address)
    broken.run(*command)
    began = time.monotonic()
    for sender, receiver in ((one, other), (other, one)):
        wait_until("a ping", lambda s=sender, r=receiver: s.ping(r.address, seconds=0.1), 10, pause=0.01)  # type: ignore[misc]
    return time.monotonic() - began


@pytest.mark.parametrize("kernel", ["compiled", "reference"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_tun_that_is_deleted_is_made_again_and_set_up(lab: Lab, workers: int) -> None:
    before = device(lab)
    assert {"UP", "persist on"} <= set(before)
    assert repaired(lab, *BREAKS["the TUN deleted"]) <= REPAIRED_SECONDS
    assert device(lab) == before
    assert [worker.restarts for worker in lab.hosts[0].agent.snapshot().workers] == [1] * workers


def test_whatever_is_broken_is_repaired_in_time(lab: Lab) -> None:
    took = {what: repaired(lab, *command) for what, command in BREAKS.items()}
    assert max(took.values()) <= REPAIRED_SECONDS, took
