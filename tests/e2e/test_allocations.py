"""Two thousand addresses asked for at once on five hosts that are cut off from each other, killed and started again."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from tests.e2e.test_blocks import blocks, electors
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.core import bounds
from tunrouter.edge.api import Call, Lease, Leases, PsCall, ReleaseCall, ReserveCall
from tunrouter.edge.api.client import Client, Result
from tunrouter.errors import AgentError, TunrouterError

pytestmark = pytest.mark.root

COUNT = 2000
AT_ONCE = 5
RELEASED = 0.2
"""Share of the addresses that are given back at once, so that others may get them: after their rest."""
CALM = 750
"""So many before anybody is killed: less than the blocks of five hosts."""


class Event(NamedTuple):
    began: float
    ended: float
    name: str
    address: str
    released: bool = False


@dataclass
class History:
    events: list[Event] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """That each allocation took which was answered at the first try."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, event: Event) -> None:
        with self.lock:
            self.events.append(event)

    def holders(self) -> dict[str, str]:
        """Address of each name that was answered and not released since; raises for one that was given twice."""
        held, freed = dict[str, str](), dict[str, float]()
        for event in sorted(self.events, key=lambda event: event.ended):
            if event.released:
                assert held.pop(event.address) == event.name
                freed[event.address] = event.began
                continue
            assert event.address not in held, f"{event} is held by {held[event.address]}"
            rested = event.ended - freed.get(event.address, -bounds.REST_SECONDS)
            assert rested >= bounds.REST_SECONDS, f"{event} rested {rested:.1f} s"
            held[event.address] = event.name
        return {name: address for address, name in held.items()}


def ask(host: Host, call: Call, kind: type[Result], deadline: float) -> tuple[Result, bool]:
    """Until it is answered, as who asks for a container does; whether the first try was."""
    client, first = Client(host.agent.directory / "run" / "tunrouter.sock"), True
    while True:
        try:
            return client.ask(call, kind), first
        except TunrouterError:
            if time.monotonic() > deadline:
                raise
            first = False
            time.sleep(0.05)


def allocate(host: Host, name: str, history: History, rng: random.Random) -> None:
    began, deadline = time.monotonic(), time.monotonic() + 60
    lease, first = ask(host, ReserveCall(name), Lease, deadline)
    ended = time.monotonic()
    history.note(Event(began, ended, name, lease.address))
    if first:
        history.seconds.append(ended - began)
    if rng.random() < RELEASED:
        ask(host, ReleaseCall(name), object, deadline)
        history.note(Event(ended, time.monotonic(), name, lease.address, released=True))


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """`action` again and again until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            action()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(repeat)
        try:
            yield
        finally:
            over.set()
        done.result()


def partition(lab: Lab, *sides: list[int]) -> None:
    lab.fabric.heal()
    side = {host: number for number, hosts in enumerate(sides) for host in hosts}
    for one in range(5):
        for other in range(5):
            if one != other and side[one] != side[other]:
                lab.fabric.cut(lab.hosts[one].name, lab.hosts[other].name)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_no_address_has_two_holders_and_none_is_lost(secret: str) -> None:
    with Lab(hosts=5, offloads="off") as lab:
        for host in lab.hosts:
            host.agent.block = ""
        first, *others = lab.hosts
        first.agent.start(password=secret)
        for host in others:
            host.agent.start(first.address, password=secret)
        wait_until("all have blocks", lambda: all(blocks(host) for host in lab.hosts), 15)
        wait_until("five decide", lambda: all(len(electors(host)) == 5 for host in lab.hosts), 30)

        client = Client(first.agent.directory / "run" / "tunrouter.sock")
        for name, address in (("", None), ("x" * 65, None), ("a\n", None), ("a", "10.32"), ("a", "192.0.2.1")):
            with pytest.raises(AgentError):
                client.ask(ReserveCall(name, address), Lease)
        client.ask(ReleaseCall("nobody"), object)

        history, rng = History(), random.Random(5)

        def work(number: int) -> None:
            allocate(lab.hosts[number % 5], f"c{number}", history, random.Random(number))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            partition(lab, [0, 1, 2], [3, 4])
            list(pool.map(work, range(CALM)))
            slowest = statistics.quantiles(history.seconds, n=100)[-1]

            kills = 0

            def kill() -> None:
                """Who starts on the smaller side asks the electors first, so sides come and go."""
                nonlocal kills
                if kills % 4 == 0:
                    partition(lab, [0, 3], [1, 2, 4])
                elif kills % 4 == 2:
                    lab.fabric.heal()
                host = rng.choice(lab.hosts)
                host.agent.kill()
                host.agent.restart()
                kills += 1

            with meanwhile(kill):
                list(pool.map(work, range(CALM, COUNT)))

        lab.fabric.heal()
        wait_until("all answer", lambda: all(blocks(host) for host in lab.hosts), 15)
        held = [lease for host in lab.hosts for lease in ask(host, PsCall(), Leases, time.monotonic() + 5)[0].leases]
        assert kills >= 5
        assert all(len(blocks(host)) > 1 for host in lab.hosts), "what was asked for is more than a block has"
        assert {lease.container: lease.address for lease in held} == history.holders()
        assert len({lease.address for lease in held}) == len(held)
        assert slowest <= 0.020, f"{slowest * 1000:.1f} ms"
