"""Large changes, others that write meanwhile, and refusals: what is said to be in force is, and nobody is blamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest

from tests.npc.tables import listed
from tunrouter.bench.namespaces import Namespace
from tunrouter.core.policy.compiler import Compiler
from tunrouter.core.policy.model import EVERYTHING, Peers, Pod, Policy, Requirement, Rule, Selector
from tunrouter.core.policy.nftables import Answer, Frame
from tunrouter.edge.netlink import nft
from tunrouter.npc import enforcement as product
from tunrouter.npc.enforcement import Enforcement

HERE = ip_address("10.32.0.1")
FIRST = ip_address("10.40.0.0")
FLUSH = "flush table inet tunrouter-policy"


def known(pods: int, groups: int) -> Compiler:
    """One pod here, isolated by a policy for the namespaces that have a label; as many elsewhere, in one that may."""
    compiler = Compiler("here")
    compiler.put_namespace("shop", {})
    compiler.put_pod(Pod("shop", "web", "web", {}, (HERE,), node="here"))
    labelled = [frozenset({Requirement("own", "Exists"), Requirement("own", "NotIn", frozenset({str(number)}))})
                for number in range(groups)]  # fmt: skip
    rules = tuple(Rule((Peers(EVERYTHING, Selector(each)),), None) for each in labelled)
    compiler.put_policy(Policy("shop", "some", EVERYTHING, rules))
    for number in range(pods):
        compiler.put_pod(Pod("others", f"pod-{number}", f"{number}", {}, (FIRST + number,), node="there"))
    compiler.put_namespace("others", {})
    return compiler


def kept(compiler: Compiler, work: Callable[[Enforcement], Coroutine[Any, Any, None]]) -> Enforcement:
    """After that work, while the kernel follows."""

    async def run() -> Enforcement:
        made = Enforcement(compiler, Frame("weave", log=False), str, lambda *_: None)
        keeping = asyncio.create_task(made.keep())
        async with asyncio.timeout(30):
            await followed(made)
            await work(made)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        return made

    return asyncio.run(run())


async def followed(made: Enforcement) -> None:
    await made.wait(made.changed(), lambda: True)


@pytest.mark.parametrize(("pods", "groups"), [(7000, 6), (6000, 16)])
def test_a_large_change_is_nobody_elses(inside: Namespace, pods: int, groups: int) -> None:
    compiler = known(pods, groups)

    async def relabel(made: Enforcement) -> None:
        compiler.put_namespace("others", {"own": "x"})
        await followed(made)
        compiler.put_namespace("later", {})
        await followed(made)

    made = kept(compiler, relabel)
    assert (made.transactions, made.repairs, made.refusals) == (2, 0, 0)
    sets = [part["elem"] for name, part in listed(inside).items() if name.startswith("set group4-")]
    assert [len(each) for each in sets] == [pods] * groups


def test_a_table_that_somebody_changed_while_it_was_changed_here_is_not_in_force(
    inside: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, apply, whys = known(1, 1), nft.apply, list[str]()

    def and_flush(text: str) -> int:
        ours = apply(text)
        inside.run("nft", FLUSH)
        monkeypatch.setattr(nft, "apply", apply)
        return ours

    async def meddle(made: Enforcement) -> None:
        monkeypatch.setattr(made, "_applied", lambda *_: whys.append(made.why))
        monkeypatch.setattr(nft, "apply", and_flush)
        compiler.put_namespace("others", {"own": "x"})
        await followed(made)

    made = kept(compiler, meddle)
    assert "somebody changed" in whys[0], "whoever asks meanwhile is not told that it is in force"
    assert made.why == ""
    assert made.repairs == 1
    assert listed(inside)["map ingress4"]["elem"], "when they were told it was written anew"


def test_answers_are_refused_by_the_next_change_if_one_was_not_accepted(inside: Namespace) -> None:
    compiler = known(1, 1)

    async def refuse(made: Enforcement) -> None:
        compiler.drop_policy(("shop", "some"))
        inside.run("nft", FLUSH + "; delete table inet tunrouter-policy")  # what is taken out is not there any more
        await made.refuse([Answer(HERE, FIRST, 6, 80, 1234)])

    made = kept(compiler, refuse)
    assert made.refusals == 1
    assert len(listed(inside)["set ended4"]["elem"]) == 1


def test_where_somebody_always_writes_the_whole_is_written_ever_more_rarely(
    inside: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time nobody knows whether it was our table that they wrote."""
    monkeypatch.setattr(product, "DOUBT_SECONDS", 0.02)
    inside.run("nft", "add table ip other; add set ip other some { type ipv4_addr; }")
    apply, ends = nft.apply, list[float]()

    def and_others_write(text: str) -> int:
        ours = apply(text)
        inside.run("nft", "add element ip other some { 1.2.3.4 }; delete element ip other some { 1.2.3.4 }")
        ends.append(time.monotonic())
        return ours

    async def look(_: Enforcement) -> None:
        while len(ends) < 6:
            await asyncio.sleep(0.01)

    monkeypatch.setattr(nft, "apply", and_others_write)
    made = kept(known(1, 1), look)
    pauses = [later - sooner for sooner, later in pairwise(ends)]
    assert all(pause >= 0.02 * 2**at for at, pause in enumerate(pauses)), pauses
    assert made.repairs == 0
