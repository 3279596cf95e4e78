"""The agent is killed while a runtime makes a pod: the tests that each runtime's file takes over.

    the runtime ──> tunrouter-cni ──> agent ──> devices, rules ──> … ──> portmap ──> the pod runs
                                │             │                 │
                              asked       half made           made

Law: whatever the runtime makes of it, either the pod works or nothing of it is left, and who was there before keeps its
connections.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

import pytest

from tests.runtimes.every import HOST_PORT, held, wait_serving
from tests.runtimes.inside import Talk, in_pod, on_host
from tests.runtimes.leftovers import remains
from tests.runtimes.runtime import Pair, Runtime, fetch
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.runtimes import PLUGIN

REACHED_SECONDS = 10.0
MADE_SECONDS = 40.0
GATE = """\
[ $CNI_COMMAND = ADD ] || exec $whole
touch {reached}
: < {gate}
exec $whole
"""


class Moment(NamedTuple):
    reach: Callable[[], object]
    """Returns when the pod that is made has come so far."""
    release: Callable[[], object] = lambda: None
    """It may go on from there."""


@contextmanager
def asked(runtime: Runtime) -> Iterator[Moment]:
    """The agent is asked, and has not begun."""
    agent = runtime.host.agent
    door = str(agent.directory / "run" / "tunrouter.sock")

    def waiting() -> bool:
        lines = agent.namespace.run("ss", "-xlH").stdout.splitlines()
        (line,) = (line.split() for line in lines if door in line)
        return int(line[2]) > 0

    agent.process.send_signal(signal.SIGSTOP)
    try:
        yield Moment(partial(wait_until, "somebody waits for the agent", waiting, REACHED_SECONDS))
    finally:
        agent.process.send_signal(signal.SIGCONT)


@contextmanager
def half_made(runtime: Runtime) -> Iterator[Moment]:
    """The pod's devices are there; what else is there is chance."""
    host = on_host(runtime.host)
    before = len(host.within(socket.if_nameindex))

    def more() -> bool:
        return len(socket.if_nameindex()) > before

    yield Moment(lambda: host.within(partial(wait_until, "a device comes", more, REACHED_SECONDS, pause=0)))


@contextmanager
def made(runtime: Runtime) -> Iterator[Moment]:
    """Our part is done, and the next plugin has not begun."""
    reached, gate = runtime.directory / "made", runtime.directory / "gate"
    os.mkfifo(gate)
    with runtime.instead("portmap", GATE.format(reached=reached, gate=gate)):
        yield Moment(
            partial(wait_until, "the next plugin is run", reached.exists, REACHED_SECONDS),
            lambda: gate.open("w").close(),
        )
    gate.unlink()
    reached.unlink()


Moments = Callable[[Runtime], AbstractContextManager[Moment]]


def kill_while_a_pod_is_made(pair: Pair, moment: Moments, *, soon: bool) -> bool:
    """Whether the pod came to be. The agent is back before the runtime gives up, or only afterwards."""
    one, two = pair
    stays, far, agent = one.launch("sleep", "infinity"), two.launch("sleep", "infinity"), one.host.agent
    before, neighbour = remains(one.host), in_pod(stays, "neighbour")
    with (
        ThreadPoolExecutor(1) as pool,
        Talk(neighbour, on_host(one.host)) as near,
        Talk(neighbour, in_pod(far, "far")) as across,
    ):
        for talk in (near, across):
            talk.go_on()
        with moment(one) as now, one.overheard(PLUGIN) as calls:
            making = pool.submit(one.serve, "hello", host_port=HOST_PORT)
            now.reach()
            agent.kill()
            now.release()
            near.go_on()
            if soon:
                agent.restart()
            failure = making.exception(MADE_SECONDS)
        near.go_on()
        if not soon:
            agent.restart()
        agent.wait_established(1)
        for talk in (near, across):
            talk.go_on()
    if failure is None:
        pod = making.result()
        wait_serving(pod)
        assert held(pod)
        assert fetch(two.host, pod.address) == fetch(two.host, one.host.address, HOST_PORT) == "hello"
        pod.remove()
    wait_until("nothing of it is left", lambda: remains(one.host) == before, 5)
    assert [call.namespace.exists() for call in calls] == [False]
    return failure is None


def quick_or_soak(*quick: str) -> pytest.MarkDecorator:
    """All moments; of those that are not named the long tests take care."""
    moments = {"asked": asked, "half made": half_made, "made": made}
    cases = [pytest.param(moments[name], id=name, marks=[] if name in quick else pytest.mark.soak) for name in moments]
    return pytest.mark.parametrize("moment", cases)


class Crashes:
    @quick_or_soak("half made")
    def test_a_pod_is_made_though_the_agent_is_killed_and_comes_back(self, pair: Pair, moment: Moments) -> None:
        assert kill_while_a_pod_is_made(pair, moment, soon=True)

    @quick_or_soak("half made")
    def test_no_half_pod_is_left_when_the_agent_is_killed_and_stays_away(self, pair: Pair, moment: Moments) -> None:
        done = kill_while_a_pod_is_made(pair, moment, soon=False)
        assert done is (moment is made) or moment is half_made
        # The runtime's next try.
        one, two = pair
        again = one.serve("again", host_port=HOST_PORT)
        wait_serving(again)
        assert fetch(two.host, again.address) == fetch(two.host, one.host.address, HOST_PORT) == "again"

    @pytest.mark.soak
    @pytest.mark.timeout(900)
    def test_killed_at_any_time_while_pods_are_made(self, pair: Pair) -> None:
        chance = random.Random(1)

        def some_time(_: Runtime) -> AbstractContextManager[Moment]:
            return nullcontext(Moment(partial(time.sleep, chance.uniform(0, 0.6))))

        outcomes = [kill_while_a_pod_is_made(pair, some_time, soon=chance.random() < 0.5) for _ in range(20)]
        assert any(outcomes)
