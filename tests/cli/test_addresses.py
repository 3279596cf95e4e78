"""`ps`, `whois`, `rmpeer`, `leave` and `electors` against a stub agent: what they ask, print, and exit with."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Done, Run
from tests.cli.test_render import IPAM, SNAPSHOT, STATIC, A, B, C
from tests.edge.serving import Stub
from tunrouter.cli import patience
from tunrouter.core.status import Ipam, awaiting_consensus
from tunrouter.edge.api import (
    Lease,
    Leases,
    LeaveCall,
    Left,
    NodeName,
    PsCall,
    Removed,
    RmpeerCall,
    SetElectorsCall,
    StatusCall,
    Whois,
    WhoisCall,
)
from tunrouter.errors import AgentError

ID = "3f2a9c" + "0" * 58
HERE = (
    Lease("10.32.1.2", "web", "eth0", A, "host-1"),
    Lease("10.32.1.3", "web2", "eth0", A, "host-1"),
    Lease("10.32.1.4", ID, "eth0", A, "host-1"),
    Lease("10.32.1.5", ID, "net1", A, "host-1"),
)
THERE = Lease("10.32.2.2", "db", "eth0", B, "host-2")
HOSTILE = "\x1b]0;owned\x07\n\u202e"

PS = """\
web          eth0 10.32.1.2/32
web2         eth0 10.32.1.3/32
3f2a9c000000 eth0 10.32.1.4/32
3f2a9c000000 net1 10.32.1.5/32
"""


def test_ps_in_weaves_columns(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Leases(HERE)
    assert tunrouter("ps") == Done(0, PS, "")
    assert agent.calls == [PsCall()]
    wide = tunrouter("ps", "-o", "wide").out
    assert f"{ID} eth0 10.32.1.4/32 {A}(host-1)\n" in wide


def test_ps_of_some_containers(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Leases(HERE)
    assert tunrouter("ps", "web").out == "web          eth0 10.32.1.2/32\n", "a whole name is no prefix"
    assert tunrouter("ps", "3f2a", "web2").out.count("\n") == 3
    missing = tunrouter("ps", "nobody", "web")
    assert missing == Done(
        1,
        "web          eth0 10.32.1.2/32\n",
        "tunrouter: no address is held by nobody; ask all nodes: tunrouter ps --all\n",
    )
    assert tunrouter("ps", "").code == 1, "nothing is no prefix of everything"


def test_pods_of_a_runtime_are_known_by_their_ids(tunrouter: Run, agent: Stub) -> None:
    pod = Lease("10.32.1.9", f"pods/{ID}", "eth0", A, "host-1")
    agent.answer = Leases((pod, Lease("10.32.1.2", "/run/netns/web", "eth0", A, "host-1")))
    line = "3f2a9c000000 eth0 10.32.1.9/32\n"
    assert tunrouter("ps").out == f"{line}/run/netns/web eth0 10.32.1.2/32\n"
    for name in ("3f2a", ID, "pods/3f2a", f"pods/{ID}"):
        assert tunrouter("ps", name).out == line
    assert f"pods/{ID} eth0" in tunrouter("ps", "-o", "wide").out
    assert tunrouter("ps", "web").code == 1, "that is a path"


def test_the_hosts_own_addresses_are_called_as_in_weave(tunrouter: Run, agent: Stub) -> None:
    own = [
        Lease(f"10.32.1.{n}", "weave:expose", interface, A, "host-1")
        for n, interface in ((2, "auto"), (9, "10.32.1.9"))
    ]
    agent.answer = Leases((*own, Lease("10.32.1.3", "web", "eth0", A, "host-1")))
    lines = "weave:expose auto 10.32.1.2/32\nweave:expose 10.32.1.9 10.32.1.9/32\n"
    assert tunrouter("ps", "weave:expose") == Done(0, lines, "")


def test_ps_of_nothing_prints_nothing(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Leases(())
    assert tunrouter("ps") == tunrouter("ps", "--all") == Done(0, "", "")


def test_ps_of_all_nodes_says_where(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Leases((*HERE[:1], THERE))
    assert tunrouter("ps", "--all") == Done(
        0, f"web          eth0 10.32.1.2/32 {A}(host-1)\ndb           eth0 10.32.2.2/32 {B}(host-2)\n", ""
    )
    assert agent.calls == [PsCall(all=True)]


def test_ps_that_is_not_whole_says_so(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Leases(HERE[:1], (NodeName(B, "host-2"), NodeName(C, HOSTILE)))
    done = tunrouter("ps", "--all", "-o", "json")
    assert done.code == 1
    assert f"tunrouter: no answer from {B}(host-2), {C}(\\x1b]0;owned" in done.err
    assert done.err.endswith("their addresses are not shown; see: tunrouter status ipam\n")
    found = json.loads(done.out)
    assert found["schema"] == 1
    assert found["leases"] == json.loads(msgspec.json.encode(HERE[:1]))
    assert found["missing"][0] == {"node": B, "nickname": "host-2"}


@pytest.mark.parametrize(
    ("answer", "line", "code"),
    [
        (
            Whois(address="10.32.2.2", state="held", block="10.32.2.0/24", owner=NodeName(B, "host-2"), lease=THERE),
            f"10.32.2.2 is held by db (eth0) on {B}(host-2), block 10.32.2.0/24",
            0,
        ),
        (
            Whois(address="10.32.2.1", state="bridge", block="10.32.2.0/24", owner=NodeName(B, "host-2")),
            f"10.32.2.1 is the bridge of {B}(host-2), block 10.32.2.0/24",
            0,
        ),
        (
            Whois(address="10.32.2.7", state="free", block="10.32.2.0/24", owner=NodeName(B, "host-2")),
            f"10.32.2.7 is free on {B}(host-2), block 10.32.2.0/24",
            0,
        ),
        (
            Whois(address="10.32.2.7", state="resting", block="10.32.2.0/24", owner=NodeName(B, "host-2")),
            f"10.32.2.7 was given back a short while ago on {B}(host-2), block 10.32.2.0/24",
            0,
        ),
        (
            Whois(address="10.32.2.7", state="silent", block="10.32.2.0/24", owner=NodeName(B, "host-2")),
            f"10.32.2.7 lies in the block 10.32.2.0/24 of {B}(host-2), which does not answer",
            1,
        ),
        (Whois(address="10.40.0.1", state="unowned"), "10.40.0.1 is free: its block has no owner", 0),
        (Whois(address="192.0.2.1", state="outside"), "192.0.2.1 lies outside the range of pods' addresses", 0),
    ],
)
def test_whois(tunrouter: Run, agent: Stub, answer: Whois, line: str, code: int) -> None:
    agent.answer = answer
    assert tunrouter("whois", f"{answer.address}/32") == Done(code, line + "\n", "")
    assert agent.calls == [WhoisCall(answer.address)]
    done = tunrouter("whois", answer.address, "-o", "json")
    assert (done.code, json.loads(done.out)["state"]) == (code, answer.state)


def test_rmpeer_in_weaves_words(tunrouter: Run, agent: Stub) -> None:
    agent.answer = (Removed(B, "host-2", 512), Removed(C, "host-3", 0))
    lines = f"512 IPs taken over from {B}(host-2)\n0 IPs taken over from {C}(host-3)\n"
    assert tunrouter("rmpeer", "host-2", C, "host-2") == Done(0, lines, "")
    assert agent.calls == [RmpeerCall(("host-2", C))]


def test_rmpeer_that_only_looks(tunrouter: Run, agent: Stub) -> None:
    agent.answer = (Removed(B, "host-2", 512),)
    line = f"512 IPs would be taken over from {B}(host-2)\n"
    assert tunrouter("rmpeer", "--dry-run", "--force", "host-2") == Done(0, line, "")
    assert agent.calls == [RmpeerCall(("host-2",), force=True, dry_run=True)]
    found = json.loads(tunrouter("rmpeer", "--dry-run", "host-2", "-o", "json").out)
    removed = {"node": B, "nickname": "host-2", "addresses": 512}
    assert found == {"schema": 1, "dry_run": True, "removed": [removed]}


def test_rmpeer_of_the_living_says_how_that_is_known(tunrouter: Run, agent: Stub) -> None:
    fix = "run there: tunrouter leave; or stop it, and try again after 3 s"
    agent.answer = AgentError(f"{B}(host-2) lives: it answered 0.4 s ago at 192.0.2.2:6783", fix)
    line = f"tunrouter: {B}(host-2) lives: it answered 0.4 s ago at 192.0.2.2:6783; {fix}\n"
    assert tunrouter("rmpeer", "host-2") == Done(1, "", line)


def test_leave(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Left(2, 512)
    assert tunrouter("leave") == Done(0, "512 IPs in 2 blocks handed back\n", "")
    agent.answer = Left(1, 256)
    assert tunrouter("leave", "--force").out == "256 IPs in 1 block handed back\n"
    assert agent.calls == [LeaveCall(), LeaveCall(force=True)]
    assert json.loads(tunrouter("leave", "-o", "json").out) == {"schema": 1, "blocks": 1, "addresses": 256}


ELECTORS = """\
        Cluster: 5f1c22d09a7be340, epoch 3
        Elector: 7a:16:dd:5b:83:de(host-1) (this node)
        Elector: 42:8e:e8:c4:52:1b(host-2)
        Elector: 00:11:22:33:44:55(host-3) (no answer)
"""


def with_addresses(ipam: Ipam | None) -> Any:
    """What a stub answers that has nothing to say but a snapshot."""
    snapshot = msgspec.structs.replace(SNAPSHOT, ipam=ipam)
    return lambda call: snapshot if isinstance(call, StatusCall) else None


def test_electors_are_shown(tunrouter: Run, agent: Stub) -> None:
    agent.answer = with_addresses(IPAM)
    assert tunrouter("electors") == Done(0, ELECTORS, "")
    assert agent.calls == [StatusCall()]
    found = json.loads(tunrouter("electors", "-o", "json").out)
    assert (found["schema"], found["cluster"], found["epoch"]) == (1, IPAM.cluster, 3)
    assert found["electors"][0] == {"peer": A, "nickname": "host-1", "reachable": True, "this": True}


def test_electors_are_set_and_then_shown(tunrouter: Run, agent: Stub) -> None:
    agent.answer = with_addresses(IPAM)
    assert tunrouter("electors", "--set", f"host-1,{B},host-3") == Done(0, ELECTORS, "")
    assert agent.calls == [SetElectorsCall(("host-1", B, "host-3")), StatusCall()]


@pytest.mark.parametrize(
    ("ipam", "line"),
    [
        (None, "blocks are given by hand here; start all nodes without --block"),
        (STATIC, "blocks are given by hand here; start all nodes without --block"),
        (
            msgspec.structs.replace(IPAM, cluster="", electors=(), status=awaiting_consensus(2, 1)),
            "no electors yet: awaiting consensus (quorum: 2, known: 1); see: tunrouter status ipam",
        ),
    ],
)
def test_where_there_are_no_electors(tunrouter: Run, agent: Stub, ipam: Ipam | None, line: str) -> None:
    agent.answer = with_addresses(ipam)
    done = tunrouter("electors")
    assert (done.code, done.out) == (1, "")
    assert line in done.err


def test_nothing_of_a_peer_reaches_the_terminal_raw(tunrouter: Run, agent: Stub) -> None:
    owner, lease = NodeName(HOSTILE, HOSTILE), Lease(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    held = Whois(address=HOSTILE, state="held", block=HOSTILE, owner=owner, lease=lease)
    answers: list[tuple[list[str], object]] = [
        (["ps", "--all"], Leases((lease,), (owner,))),
        (["whois", "10.32.1.2"], held),
        (["rmpeer", "a"], (Removed(HOSTILE, HOSTILE, 1),)),
        (["electors"], msgspec.structs.replace(SNAPSHOT, ipam=msgspec.structs.replace(IPAM, cluster=HOSTILE))),
    ]
    for arguments, answer in answers:
        agent.answer = answer
        done = tunrouter(*arguments)
        assert done.out.count("\n") == (4 if arguments == ["electors"] else 1)
        assert (done.out + done.err).replace("\n", "").isprintable()


def test_what_takes_long_says_so_on_stderr(tunrouter: Run, agent: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(patience, "NEXT_SECONDS", 0.01)

    async def slowly() -> Left:
        await asyncio.sleep(0.2)
        return Left(1, 256)

    agent.answer = lambda call: slowly() if isinstance(call, LeaveCall) else None
    done = tunrouter("leave")
    assert done.out == "256 IPs in 1 block handed back\n"
    first, *more = done.err.splitlines()
    assert first == "handing the blocks back …"
    assert more
    assert all(line == "handing the blocks back … 0 s" for line in more)
