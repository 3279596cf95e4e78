"""What the kernel enforces stays: whoever changes it, whoever is killed, and while the API is away."""

from __future__ import annotations

import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from tests.policy.cluster import Cluster, Json
from tests.policy.expecting import expected
from tests.policy.kernel import IN, Listing, listing
from tests.policy.probing import Cell, Prober
from tests.policy.written import ALL, EVERY, block, pods, policy, tcp
from tunrouter.bench.agent import command_line
from tunrouter.bench.lab import Host
from tunrouter.bench.libcni import PluginError
from tunrouter.bench.namespaces import Namespace, wait_until

pytestmark = pytest.mark.root

REPAIR_SECONDS = 2.0
DENY = policy("x", ALL, "deny", EVERY)
SOME = (
    DENY,
    policy("x", pods(pod="a"), "in", ingress=[{"from": [{"namespaceSelector": pods(ns="y")}], "ports": [tcp(80)]}]),
    policy("x", ALL, "out", ("Egress",), egress=[{"to": [block("192.0.2.0/24", "192.0.2.1/32")]}]),
)
PLACES = ("x/a", "x/c", "y/b", "host1")
"""All on the first node, whose kernel is looked at."""
CHAIN, ISOLATED = (*IN, "leaving"), (*IN, "ingress4")
DAMAGE = {
    "everything is flushed": ("flush", "ruleset"),
    "the table is deleted": ("delete", "table", *IN),
    "the table's rules are flushed": ("flush", "table", *IN),
    "a chain is flushed": ("flush", "chain", *CHAIN),
    "the map of pods is flushed": ("flush", "map", *ISOLATED),
    "a rule is put before ours": ("insert", "rule", *IN, "arriving", "accept"),
    "the table is dormant": ("add", "table", *IN, "{ flags dormant; }"),
}


def right(live: tuple[Cluster, Prober]) -> bool:
    found, prober = live
    return not prober.wrong(expected(found, found.cells(PLACES, PLACES)))


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_others_change_is_repaired(live: tuple[Cluster, Prober], damage: str) -> None:
    found, _ = live
    found.enforce(*SOME)
    host, npc = found.hosts[0], found.npcs[0]
    before, said = settled(found, host), npc.said("it is written anew")
    assert before
    began = time.monotonic()
    host.namespace.run("nft", *DAMAGE[damage])
    wait_until("it is noticed", lambda: npc.said("it is written anew") > said, REPAIR_SECONDS)
    wait_until("it is as it was", lambda: listing(host) == before and closed(live), REPAIR_SECONDS + 3)
    assert time.monotonic() - began < REPAIR_SECONDS
    found.wait_in_force()
    assert right(live)


def closed(live: tuple[Cluster, Prober]) -> bool:
    found, prober = live
    return not prober.opens(Cell("y/b", found.addresses["x/c"], "UDP", 80), quiet=0.05)


def edited(selected: Json, peer: Json, first: int) -> Json:
    """One policy in two forms, of which nothing is alike; the text of its transaction is longer than a pipe."""
    without = [f"10.{first + at // 250}.{at % 250}.0/25" for at in range(1500)]
    rule = {"from": [peer, block("10.0.0.0/8", *without)], "ports": [tcp("web")]}
    return policy("x", selected, "edited", ingress=[rule], egress=[{"to": [peer]}])


FORMS = (edited(pods(pod="a"), {"namespaceSelector": pods(ns="y")}, 40), edited(ALL, {"podSelector": ALL}, 60))


def test_the_kernel_has_the_old_rules_or_the_new_ones_whenever_npc_is_killed(live: tuple[Cluster, Prober]) -> None:
    kill_while_editing(live[0], rounds=2, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_kernel_has_the_old_rules_or_the_new_ones_many_times(live: tuple[Cluster, Prober]) -> None:
    kill_while_editing(live[0], rounds=150, seed=2)


def kill_while_editing(found: Cluster, rounds: int, seed: int) -> None:
    """From one form to the other as fast as it goes, and npc is killed at any moment."""
    host, npc, random = found.hosts[0], found.npcs[0], Random(seed)
    legal: list[Listing] = []
    for form in FORMS:
        found.enforce(DENY, form)
        legal.append(listing(host))
    assert legal[0] != legal[1]
    for _ in range(rounds):
        over = threading.Event()
        editor = threading.Thread(target=edit, args=(found, over))
        editor.start()
        over.wait(0.2 + random.random())
        npc.kill()
        over.set()
        editor.join()
        # It may have been told all, and be at work still.
        wait_until(
            "no nft is left", lambda: not any(command_line(pid)[:4] == b"nft\0" for pid in host.namespace.pids()), 5
        )
        now = listing(host)
        assert now in legal, differences(now, legal)
        npc.start()


def edit(found: Cluster, over: threading.Event) -> None:
    while not over.is_set():
        for form in FORMS:
            found.plant(form)
            over.wait(0.02)


def differences(now: Listing, legal: list[Listing]) -> str:
    return "\n".join(
        f"{which}: {[name for name in now.keys() | one.keys() if now.get(name) != one.get(name)]}"
        for which, one in zip(("unlike the first", "unlike the second"), legal, strict=True)
    )


def test_a_pod_has_its_policies_when_it_is_added(live: tuple[Cluster, Prober]) -> None:
    """The first question after ADD is answered as it has to be."""
    found, prober = live
    found.enforce(*SOME)
    host = found.hosts[0]
    for number in range(3):
        pod = found.add_pod("x", f"new{number}", host, {"pod": "a"}, told=False)
        name = pod.key
        prober.add(name, pod.attached.namespace)
        cells = {
            Cell("y/b", pod.address, "TCP", 80): True,
            Cell("y/b", pod.address, "TCP", 81): False,
            Cell("y/b", pod.address, "SCTP", 80): False,
            Cell(name, found.hosts[0].address, "UDP", 80): False,
            Cell(name, found.addresses["y/b"], "TCP", 80): False,
        }
        assert prober.ask(cells, rounds=1).keys() == {cell for cell, is_open in cells.items() if is_open}
        prober.remove(name)
        found.delete_pod(pod)


def test_a_pod_is_closed_until_its_policies_are_known(live: tuple[Cluster, Prober]) -> None:
    """While npc stands still ADD waits, and the new pod's address is nobody's; it is open as soon as ADD has ended."""
    found, prober = live
    found.enforce(*SOME)
    host, npc = found.hosts[0], found.npcs[0]
    attached = host.make_namespace("slow")
    prober.add("slow", attached.namespace)
    with ThreadPoolExecutor(1) as pool:
        npc.signal(signal.SIGSTOP)
        try:
            adding = pool.submit(found.add_pod, "y", "slow", host, told=False, attached=attached)
            address = wait_until("it has an address", lambda: address_in(attached.namespace), 5)
            cells = [Cell("y/b", address, "TCP", 80), Cell("slow", found.addresses["y/b"], "UDP", 80),
                     Cell("slow", host.address, "TCP", 80)]  # fmt: skip
            assert not prober.ask(cells)
            assert not adding.done()
        finally:
            npc.signal(signal.SIGCONT)
        adding.result()
    assert prober.ask(cells, rounds=1).keys() == set(cells), "y has no policies"
    prober.remove("slow")
    found.delete_pod(found.pods["y/slow"])


def address_in(namespace: Namespace) -> str:
    found = re.search(r"inet ([\d.]+)/32 .*eth0", namespace.run("ip", "-o", "-4", "address").stdout)
    return found[1] if found else ""


@pytest.mark.soak
def test_a_pod_cannot_be_added_without_npc_and_can_soon_after(live: tuple[Cluster, Prober]) -> None:
    found, _ = live
    host, npc = found.hosts[0], found.npcs[0]
    npc.kill()
    try:
        began = time.monotonic()
        with pytest.raises(PluginError, match="weave-npc"):
            found.add_pod("y", "early", host)
        assert time.monotonic() - began < 8
    finally:
        npc.start()
    found.delete_pod(found.add_pod("y", "late", host))


def test_while_the_api_is_away_policies_stay_and_npc_may_start_anew(live: tuple[Cluster, Prober]) -> None:
    found, prober = live
    found.enforce(*SOME)
    host, npc = found.hosts[0], found.npcs[0]
    before, cells = settled(found, host), expected(found, found.cells(PLACES, PLACES))
    found.scene.control.do("down")
    try:
        assert not prober.wrong(cells)
        npc.kill()
        npc.start(wait=False)
        wait_until("it says that it knows nothing yet", lambda: (told := npc.table()) and not told.in_force, 10)
        assert not prober.wrong(cells)
        assert listing(host) == before
        npc.stop()
        assert listing(host) == before
        npc.start(wait=False)
    finally:
        found.scene.control.do("up")
    found.wait_in_force(20)
    assert not prober.wrong(cells)
    assert listing(host) == before


def settled(found: Cluster, host: Host) -> Listing:
    """What the kernel has when the pods of earlier tests are gone."""
    here = sum(pod.host is host for pod in found.pods.values())
    wait_until("pods of earlier tests are gone", lambda: len(listing(host)["set itself4"]) == here, 10)
    return listing(host)
