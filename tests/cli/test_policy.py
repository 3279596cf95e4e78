"""`policy explain` and `policy list` against a stub of weave-npc: what they ask, print, and exit with."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Done, Run
from tests.edge.serving import Stub, serving
from tunrouter.cli import policy
from tunrouter.edge.api import ExplainCall, Explained, PoliciesCall, PolicyRow, PolicyTable, Step
from tunrouter.edge.api.client import NPC, Client
from tunrouter.edge.api.server import POLICING
from tunrouter.errors import AgentError, AgentSilentError

HOSTILE = "\x1b]0;owned\x07\n\u202e"
MANY = tuple(f"shop/p{number:02}" for number in range(18))

DENIED = Explained(
    allowed=False,
    source="pod shop/web (10.32.0.2)",
    destination="pod shop/db (10.32.0.3)",
    steps=(
        Step("egress", "shop/web", allowed=True, why="no policy isolates its egress"),
        Step("ingress", "shop/db", allowed=False, why="2 policies isolate it, none permits this",
             policies=("shop/deny", "shop/db")),
    ),
    hints=("weave-npc is out of touch",),
)  # fmt: skip
DENIED_TEXT = """\
DENIED: TCP 5432 from pod shop/web (10.32.0.2) to pod shop/db (10.32.0.3)

egress   allowed  shop/web: no policy isolates its egress
ingress  denied   shop/db: 2 policies isolate it, none permits this
                  isolated by shop/deny, shop/db

hint: weave-npc is out of touch
"""
ALLOWED = Explained(
    allowed=True,
    source="192.0.2.9, no pod",
    destination="pod shop/db (10.32.0.3)",
    steps=(
        Step("egress", "", allowed=True, why="the source is no pod that policies can select"),
        Step("ingress", "shop/db", allowed=True, why="ingress rule 0 of shop/db permits it: from anywhere, all ports",
             policies=("shop/db",), policy="shop/db", rule=0),
    ),
)  # fmt: skip
ALLOWED_TEXT = """\
ALLOWED: ICMP from 192.0.2.9, no pod to pod shop/db (10.32.0.3)

egress   allowed  the source is no pod that policies can select
ingress  allowed  shop/db: ingress rule 0 of shop/db permits it: from anywhere, all ports
                  isolated by shop/db
"""
TABLE = PolicyTable(
    (
        PolicyRow("default", "deny", ("egress", "ingress"), 12, 3),
        PolicyRow("shop", "db", ("ingress",), 1, 0, ("one is not understood", "another neither")),
    ),
    in_force=True,
)
TABLE_TEXT = """\
NAMESPACE  NAME  DIRECTIONS       PODS  HERE  FAULTS
default    deny  egress, ingress  12    3     -
shop       db    ingress          1     0     one is not understood (and 1 more)

2 policies, in force
"""


@pytest.fixture
def npc(tmp_path: Path) -> Iterator[Stub]:
    stub = Stub(DENIED)
    with serving(tmp_path / "npc.sock", stub, language=POLICING):
        yield stub


# --- explain ---------------------------------------------------------------------------------------------------------
def test_what_may_not_be_is_said_with_its_policies_and_exits_1(tunrouter: Run, npc: Stub) -> None:
    assert tunrouter("policy", "explain", "shop/web", "shop/db", "5432") == Done(1, DENIED_TEXT, "")
    assert npc.calls == [ExplainCall("shop/web", "shop/db", 5432, "TCP")]
    assert tunrouter("--local", "policy", "explain", "shop/web", "shop/db", "5432") == Done(1, DENIED_TEXT, "")


def test_what_may_be_exits_0_and_icmp_has_no_port(tunrouter: Run, npc: Stub) -> None:
    npc.answer = ALLOWED
    assert tunrouter("policy", "explain", "192.0.2.9", "shop/db", "0/icmp") == Done(0, ALLOWED_TEXT, "")


@pytest.mark.parametrize(
    ("source", "destination", "port", "call"),
    [
        ("web", "shop/db", "80", ExplainCall("default/web", "shop/db", 80, "TCP")),
        ("node", "2001:db8::1", "53/udp", ExplainCall("node", "2001:db8::1", 53, "UDP")),
        ("10.32.0.2", "node", "65535/SCTP", ExplainCall("10.32.0.2", "node", 65535, "SCTP")),
        ("default/node", "a.b-c", "0/Icmp", ExplainCall("default/node", "default/a.b-c", 0, "ICMP")),
    ],
)
def test_ends_and_ports_as_people_give_them(
    source: str, destination: str, port: str, call: ExplainCall, tunrouter: Run, npc: Stub
) -> None:
    tunrouter("policy", "explain", source, destination, port)
    assert npc.calls == [call]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["explain", "a", "b"], "missing argument 'PORT[/PROTOCOL]'; see: tunrouter policy explain --help"),
        (["explain", "a/b/c", "b", "80"], "'a/b/c' names no end of a connection; give NAMESPACE/POD, POD (of the"),
        (["explain", "a", "shop/", "80"], "'shop/' names no end"),
        (["explain", "/a", "b", "80"], "'/a' names no end"),
        (["explain", "", "b", "80"], "'' names no end"),
        (["explain", "a", "b", "http"], "expected PORT or PORT/PROTOCOL, got 'http'; for example: 80, 53/udp or 0/icm"),
        (["explain", "a", "b", "65536"], "expected PORT or PORT/PROTOCOL, got '65536'"),
        (["explain", "a", "b", "\u0661"], "expected PORT or PORT/PROTOCOL"),
        (["explain", "a", "b", "9" * 5000], "expected PORT or PORT/PROTOCOL"),
        (["explain", "a", "b", "80/tpc"], "protocol 'tpc' is not known; did you mean tcp?"),
        (["explain", "a", "b", "80/"], "protocol '' is not known"),
        (["explain", "a", "b", "80", "-o", "yaml"], "output 'yaml' is not known; give one of text, wide, json"),
        (["list", "-o", "yaml"], "output 'yaml' is not known"),
        (["lst"], "no such command 'lst'"),
    ],
)
def test_a_question_at_fault_is_a_line_and_exits_2(arguments: list[str], line: str, tunrouter: Run, npc: Stub) -> None:
    done = tunrouter("policy", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"tunrouter: {line}")
    assert npc.calls == []


def test_what_weave_npc_refuses_is_no_answer_of_no(tunrouter: Run, npc: Stub) -> None:
    npc.answer = AgentError("no pod shop/web is known", "look with: kubectl get pods -A -o wide")
    line = "tunrouter: no pod shop/web is known; look with: kubectl get pods -A -o wide\n"
    assert tunrouter("policy", "explain", "shop/web", "shop/db", "80") == Done(2, "", line)


def test_json_is_the_message(tunrouter: Run, npc: Stub) -> None:
    done = tunrouter("policy", "explain", "shop/web", "shop/db", "5432", "-o", "json")
    assert done.code == 1
    assert json.loads(done.out) == {"schema": 1, **json.loads(msgspec.json.encode(DENIED))}
    npc.answer = TABLE
    done = tunrouter("policy", "list", "-o", "json")
    assert json.loads(done.out) == {"schema": 1, **json.loads(msgspec.json.encode(TABLE))}


def test_many_policies_are_named_in_wide_alone(tunrouter: Run, npc: Stub) -> None:
    last = msgspec.structs.replace(DENIED.steps[1], policies=MANY)
    npc.answer = msgspec.structs.replace(DENIED, steps=(last,))
    arguments = ("policy", "explain", "a", "b", "80")
    assert "shop/p15 and 2 more\n" in tunrouter(*arguments).out
    assert f"isolated by {', '.join(MANY)}\n" in tunrouter(*arguments, "-o", "wide").out


def test_colours_are_for_terminals() -> None:
    def painted(found: Explained) -> list[str]:
        return list(policy.explained(ExplainCall("a", "b", 80), found, wide=False, colour=True))

    assert painted(DENIED)[0].startswith("\x1b[31mDENIED\x1b[0m: ")
    assert painted(ALLOWED)[0].startswith("\x1b[32mALLOWED\x1b[0m: ")
    assert "\x1b[31mdenied \x1b[0m" in painted(DENIED)[3]
    assert painted(DENIED)[-1].startswith("\x1b[33mhint\x1b[0m: ")
    assert list(policy.table(TABLE, wide=False, colour=True))[-1] == "2 policies, \x1b[32min force\x1b[0m"


def test_nothing_that_is_told_commands_the_terminal(tunrouter: Run, npc: Stub) -> None:
    step = Step("ingress", HOSTILE, allowed=False, why=HOSTILE, policies=(HOSTILE,))
    npc.answer = Explained(False, HOSTILE, HOSTILE, (step,), (HOSTILE,))
    assert all(line.isprintable() for line in tunrouter("policy", "explain", "a", "b", "80").out.split("\n"))
    npc.answer = PolicyTable((PolicyRow(HOSTILE, HOSTILE, ("egress",), 1, 1, (HOSTILE,)),), in_force=False, why=HOSTILE)
    assert all(line.isprintable() for line in tunrouter("policy", "list").out.split("\n"))


# --- list ------------------------------------------------------------------------------------------------------------
def test_the_list_in_columns_and_its_state_last(tunrouter: Run, npc: Stub) -> None:
    npc.answer = TABLE
    assert tunrouter("policy", "list") == Done(0, TABLE_TEXT, "")
    assert npc.calls == [PoliciesCall()]
    assert "one is not understood; another neither\n" in tunrouter("policy", "list", "-o", "wide").out


@pytest.mark.parametrize(
    ("table", "code", "state"),
    [
        (PolicyTable((), in_force=True), 0, "no policies, in force"),
        (PolicyTable(TABLE.policies[:1], in_force=True), 0, "1 policy, in force"),
        (PolicyTable((), in_force=True, why="refused"), 0, "no policies, in force (but this may be old: refused)"),
        (PolicyTable((), in_force=False, why="nothing was written yet"), 1,
         "no policies, NOT in force: nothing was written yet"),
    ],
)  # fmt: skip
def test_what_is_not_in_force_is_said_and_exits_1(
    table: PolicyTable, code: int, state: str, tunrouter: Run, npc: Stub
) -> None:
    npc.answer = table
    done = tunrouter("policy", "list")
    assert (done.code, done.out.splitlines()[-1]) == (code, state)


# --- nobody answers --------------------------------------------------------------------------------------------------
def test_without_a_policy_process_it_says_where_to_look(tunrouter: Run, tmp_path: Path) -> None:
    line = (
        f"tunrouter: no weave-npc answers on {tmp_path}/npc.sock; this node has no policy process, or one that does "
        "not run; look with: kubectl logs -n kube-system POD -c weave-npc\n"
    )
    for command in ("list", "explain a b 80"):
        assert tunrouter("policy", *command.split()) == Done(3, "", line)


def test_the_socket_may_be_given(tunrouter: Run, npc: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npc.answer = TABLE
    monkeypatch.setenv("TUNROUTER_RUN_DIR", "/nowhere")
    assert tunrouter("policy", "list").code == 3
    assert tunrouter("policy", "list", "--socket", str(tmp_path / "npc.sock")).code == 0


def test_a_weave_npc_in_trouble_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "npc.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with pytest.raises(AgentSilentError, match=r"^weave-npc did not answer within 0.1 s; look with: kubectl logs"):
            Client(path, 0.1, NPC).ask(PoliciesCall(), PolicyTable)
