"""`tunrouter report`: Weave's structure key by key, paths and templates, and what the disk says without an agent."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.test_render import ESTABLISHED, HOSTILE, IPAM, RETRYING, SNAPSHOT, STATIC, A, B, C
from tests.edge.serving import Stub
from tunrouter.core import electorate, keys, status
from tunrouter.core.status import Claimed, Pending, Route, Snapshot
from tunrouter.edge.store import DATABASE, KEY, Change, Store
from tunrouter.errors import AgentError

ROOT = Path(__file__).parent.parent.parent
RELAYED = msgspec.structs.replace(ESTABLISHED, peer=C, nickname="host-3", path="relay through host-2", via=B)
WHOLE = msgspec.structs.replace(
    SNAPSHOT,
    connections=(ESTABLISHED, RELAYED, RETRYING),
    peers=(*SNAPSHOT.peers, msgspec.structs.replace(SNAPSHOT.peers[1], name=C, id="ffffffffffffffff")),
    counters={"sessions_ended": 4},
    ipam=msgspec.structs.replace(
        IPAM,
        quorum=2,
        known=2,
        pending=(Pending(what="an address for web", why="full", container="web"), Pending(what="a block", why="x")),
        claims=(Claimed(container="db", address="10.32.9.2"),),
    ),
    routes=(
        Route(block="10.32.1.0/24", version=0, peer=A, nickname="host-1", path="local"),
        Route(block="10.32.2.0/24", version=7, peer=C, nickname="host-3", path="on demand"),
        Route(block="10.32.2.0/24", version=3, peer=B, nickname="host-2", path="direct", conflict="host-3 has it"),
    ),
)
WEAVE = {
    "": "Ready Version VersionCheck Router IPAM DNS Proxy Plugin",
    "VersionCheck": "Enabled Success NewVersion NextCheckAt",
    "Router": "Protocol ProtocolMinVersion ProtocolMaxVersion Encryption PeerDiscovery Name NickName Port Peers "
    "UnicastRoutes BroadcastRoutes Connections TerminationCount Targets OverlayDiagnostics TrustedSubnets Interface "
    "CaptureStats MACs",
    "Router.Peers.0": "Name NickName UID ShortID Version Connections",
    "Router.Peers.0.Connections.0": "Name NickName Address Outbound Established",
    "Router.UnicastRoutes.0": "Dest Via",
    "Router.Connections.0": "Address Outbound State Info Attrs",
    "Router.Connections.0.Attrs": "name mtu encrypted",
    "Router.OverlayDiagnostics": "fastdp sleeve",
    "IPAM": "Paxos Range RangeNumIPs ActiveIPs DefaultSubnet Entries PendingClaims PendingAllocates",
    "IPAM.Paxos": "Elector KnownNodes Quorum",
    "IPAM.Entries.0": "Token Size Peer Nickname IsKnownPeer Version",
    "IPAM.PendingClaims.0": "Ident CIDR",
}
"""The keys of Weave 2.8 at each place."""
OURS = {"": "schema running disk snapshot", "Router.Connections.0.Attrs": "path rtt loss"}


@pytest.fixture
def whole(tunrouter: Run, agent: Stub) -> dict[str, Any]:
    agent.answer = WHOLE
    found = json.loads(tunrouter("report").out)
    assert isinstance(found, dict)
    return found


def at(tree: Any, path: str) -> Any:
    for step in filter(None, path.split(".")):
        tree = tree[int(step)] if step.isdigit() else tree[step]
    return tree


@pytest.mark.parametrize("path", list(WEAVE))
def test_every_key_of_weave_is_there_and_ours_are_known(whole: dict[str, Any], path: str) -> None:
    assert set(at(whole, path)) == {*WEAVE[path].split(), *OURS.get(path, "").split()}


def test_what_the_keys_say(whole: dict[str, Any]) -> None:
    router, ipam = whole["Router"], whole["IPAM"]
    assert (whole["schema"], whole["running"], whole["Ready"], whole["DNS"], whole["disk"]) == (
        1,
        True,
        True,
        None,
        None,
    )
    assert (router["Name"], router["NickName"], router["Port"], router["TerminationCount"]) == (A, "host-1", 6783, 4)
    assert router["Targets"] == ["192.0.2.2", "host-5"]
    assert router["UnicastRoutes"] == [
        {"Dest": A, "Via": "00:00:00:00:00:00"},
        {"Dest": B, "Via": B},
        {"Dest": C, "Via": B},
    ]
    direct, relayed, retrying = router["Connections"]
    assert direct["Info"] == "encrypted   tun    42:8e:e8:c4:52:1b(host-2)", "the columns of Weave's template"
    assert direct["Attrs"]["mtu"] == 1439
    assert relayed["Attrs"]["path"] == "relay through host-2"
    assert (retrying["State"], retrying["Attrs"]) == ("retrying", None)
    assert retrying["Info"] == "name does not resolve, retry: in 1.5s"
    assert ipam["Paxos"] == {"Elector": True, "KnownNodes": 2, "Quorum": 2}
    assert (ipam["Range"], ipam["RangeNumIPs"], ipam["ActiveIPs"]) == ("10.32.0.0/12", 1 << 20, 2)
    assert ipam["Entries"] == [
        {"Token": "10.32.1.0", "Size": 256, "Peer": A, "Nickname": "host-1", "IsKnownPeer": True, "Version": 0},
        {"Token": "10.32.2.0", "Size": 256, "Peer": C, "Nickname": "host-3", "IsKnownPeer": False, "Version": 7},
    ]
    assert ipam["PendingClaims"] == [{"Ident": "db", "CIDR": "10.32.9.2/32"}]
    assert ipam["PendingAllocates"] == ["web"]


def test_our_own_snapshot_is_whole_in_it(whole: dict[str, Any]) -> None:
    assert msgspec.convert(whole["snapshot"], Snapshot) == WHOLE


def test_blocks_by_hand_have_no_paxos_and_an_old_agent_no_ipam(tunrouter: Run, agent: Stub) -> None:
    agent.answer = msgspec.structs.replace(WHOLE, ipam=STATIC, unready="no block")
    found = json.loads(tunrouter("report", "-o", "json").out)
    assert (found["IPAM"]["Paxos"], found["Ready"]) == (None, False)
    agent.answer = SNAPSHOT
    assert tunrouter("report", "-f", "IPAM").out == "null\n"


# --- -f --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("Router.Name", A),
        (".Router.Peers.1.NickName", "host-2"),
        ("Router.TerminationCount", "4"),
        ("Ready", "true"),
        ("DNS", "null"),
        ("IPAM.PendingAllocates", '[\n  "web"\n]'),
        ("{{.Router.Name}}", A),
        ("{{json .IPAM.PendingAllocates}}", '["web"]'),
        ("{{ json .Router.NickName }}", '"host-1"'),
        ("{{.Router.NickName}} has {{.IPAM.ActiveIPs}} of {{ .IPAM.Range }}", "host-1 has 2 of 10.32.0.0/12"),
    ],
)
def test_paths_and_templates_that_are_paths(tunrouter: Run, agent: Stub, template: str, shown: str) -> None:
    agent.answer = WHOLE
    assert tunrouter("report", "-f", template) == (0, shown + "\n", "")


def test_the_whole_by_template_is_the_whole(tunrouter: Run, agent: Stub) -> None:
    agent.answer = WHOLE
    assert tunrouter("report", "-f", "{{json .}}").out == tunrouter("report", "-o", "json").out
    assert tunrouter("report", "-f", ".").out == tunrouter("report").out


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("Router.Peer", "-f: there is no 'Peer' in 'Router.Peer'; choose one of Protocol, ProtocolMinVersion, "),
        ("Router.Peers.9", "-f: there is no '9' in 'Router.Peers.9'; give a number from 0 to 2"),
        ("Router.MACs.0", "-f: there is no '0' in 'Router.MACs.0'; nothing is below it"),
        ("Ready.x", "-f: there is no 'x' in 'Ready.x'; nothing is below it"),
        ("{{range .Router.Peers}}{{.Name}}{{end}}", "-f: {{range .Router.Peers}} is not known, templates are "),
        ("{{.A | json}}", "and {{json .Some.Path}}; for more than that: tunrouter report | jq"),
        ("\x1b[2J", r"-f: there is no '\x1b[2J' in"),
    ],
)
def test_what_is_no_path_is_refused(tunrouter: Run, agent: Stub, template: str, line: str) -> None:
    agent.answer = WHOLE
    done = tunrouter("report", "-f", template)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert line in done.err


def test_text_of_a_peer_is_harmless_alone_too(tunrouter: Run, agent: Stub) -> None:
    hostile = HOSTILE.removesuffix("\udc80")  # what JSON cannot carry
    agent.answer = msgspec.structs.replace(WHOLE, nickname=hostile)
    out = tunrouter("report", "-f", "{{.Router.NickName}}").out + tunrouter("report", "-f", "Router.NickName").out
    assert out.replace("\n", "").isprintable()
    assert out.count("\n") == 2


# --- without an agent ------------------------------------------------------------------------------------------------
SEED = bytes(range(100, 132))
SECRET = "correct horse battery staple"
SECONDS = 10.0


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a node left that is its own elector."""
    directory = tmp_path / "state"
    monkeypatch.setenv("TUNROUTER_STATE_DIR", str(directory))
    monkeypatch.setenv("TUNROUTER_NAME", "host-1")
    monkeypatch.setenv("TUNROUTER_PASSWORD", SECRET)
    with closing(Store(directory)) as store:
        store.identity(SEED)
        store.next_incarnation(4711)
        store.remember_targets(["peer.example"])
        store.remember_endpoints([("192.0.2.7", 6783), ("2001:db8::7", 6783)])
        chosen = electorate.Configuration(9, 3, (electorate.Elector(keys.Identity(SEED).node_id, 5),))
        store.write(
            [
                Change("block", (2,), (7, "first")),
                Change("lease", (int(IPv4Network("10.32.2.0/24")[5]),), ("web", "eth0", 0, "")),
                Change("lease", (int(IPv4Network("10.32.2.0/24")[6]),), ("gone", "eth0", 4, "")),
                Change("cluster", ("configuration",), (electorate.encode(chosen),)),
            ]
        ).result(SECONDS)
    return directory


def untouched(directory: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """All that a look could have changed, but for times of access."""
    found = {}
    for path in (directory, *sorted(directory.iterdir())):
        about = path.stat()
        content = path.read_bytes() if path.is_file() else b""
        found[path.name] = content, about.st_mtime_ns, about.st_ctime_ns, about.st_mode
    return found


def test_without_an_agent_it_says_so_and_tells_what_is_on_disk(tunrouter: Run, state: Path) -> None:
    before = untouched(state)
    done = tunrouter("report")
    assert (done.code, done.err) == (0, f"tunrouter: no agent runs: this is what is on disk in {state}\n")
    found = json.loads(done.out)
    node = keys.Identity(SEED).node_id
    name = status.peer_name(node)
    assert (found["running"], found["Ready"], found["snapshot"]) == (False, False, None)
    for path, weaves in WEAVE.items():
        if path in ("", "VersionCheck", "Router", "IPAM", "IPAM.Entries.0"):
            assert set(at(found, path)) == {*weaves.split(), *OURS.get(path, "").split()}
    assert (found["Router"]["Name"], found["Router"]["NickName"]) == (name, "host-1")
    assert found["Router"]["Targets"] == ["peer.example"]
    assert found["IPAM"]["ActiveIPs"] == 1
    assert found["IPAM"]["Entries"][0] == {
        "Token": "10.32.2.0", "Size": 256, "Peer": name, "Nickname": "host-1", "IsKnownPeer": True, "Version": 7,
    }  # fmt: skip
    disk = found["disk"]
    assert disk == {
        "state_dir": str(state),
        "database": 3,
        "name": name,
        "id": f"{node:016x}",
        "incarnation": 4711,
        "cluster": f"{9:016x}",
        "epoch": 3,
        "electors": [name],
        "targets": ["peer.example"],
        "endpoints": ["192.0.2.7:6783", "[2001:db8::7]:6783"],
        "blocks": [{"place": 2, "block": "10.32.2.0/24", "version": 7, "state": "first"}],
        "leases": [{"address": "10.32.2.5", "container": "web", "interface": "eth0"}],
        "resting": 1,
        "registers": 0,
    }
    assert untouched(state) == before


def test_no_secret_is_in_it(tunrouter: Run, state: Path) -> None:
    out = tunrouter("report").out
    assert SECRET not in out
    for form in (SEED.hex(), SEED.decode("latin-1"), str(list(SEED))[1:-1]):
        assert form not in out


def test_what_a_killed_agent_left_is_read_whole_and_not_touched(tunrouter: Run, state: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from tunrouter.edge.store import Store, Change; "
        "store = Store(Path(sys.argv[1])); "
        "store.write([Change('lease', (int(sys.argv[2]),), ('killed', 'eth0', 0, ''))]).result(10); os._exit(9)"
    )
    address = str(int(IPv4Network("10.32.2.0/24")[9]))
    assert subprocess.run([sys.executable, "-c", program, str(state), address], cwd=ROOT, check=False).returncode == 9
    assert {path.name for path in state.iterdir()} == {KEY, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
    before = untouched(state)
    containers = [lease["container"] for lease in json.loads(tunrouter("report").out)["disk"]["leases"]]
    assert containers == ["web", "killed"]
    assert untouched(state) == before
    (state / f"{DATABASE}-shm").unlink()
    before = untouched(state)
    assert json.loads(tunrouter("report", "-f", "disk.leases").out)[1]["container"] == "killed"
    assert untouched(state) == before


def damaged(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield b"not a database, but long enough to be taken for one" * 200
    yield content[: len(content) // 2]
    yield content[:4096] + bytes(len(content) - 4096)
    yield content[:100]
    with closing(sqlite3.connect(path)) as database:
        (page,) = database.execute("select rootpage from sqlite_schema where type = 'index'").fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    yield content[: size * (page - 1)] + bytes(size) + content[size * page :]  # of which no table has anything


def test_a_damaged_database_is_refused_in_one_line_and_left_alone(tunrouter: Run, state: Path) -> None:
    for damage in list(damaged(state / DATABASE)):
        (state / DATABASE).write_bytes(damage)
        before = untouched(state)
        done = tunrouter("report")
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert f"cannot read {state / DATABASE}: " in done.err
        assert untouched(state) == before


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("pragma user_version = 99", "is of a newer tunrouter (schema 99, this knows 3); use that version's command"),
        ("update block set place = 1 << 40", "holds what no agent wrote"),
        ("update lease set address = -address", "holds what no agent wrote"),
        ("update cluster set data = x'ff'", "holds what no agent wrote"),
        ("drop table life; create table life (other); insert into life values (1)", "holds what no agent wrote"),
    ],
)
def test_what_no_agent_wrote_is_refused(tunrouter: Run, state: Path, sql: str, line: str) -> None:
    with closing(sqlite3.connect(state / DATABASE)) as database:
        database.executescript(sql)
    done = tunrouter("report")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert line in done.err


def test_where_no_agent_ever_was_nothing_is_made(
    tunrouter: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNROUTER_STATE_DIR", str(tmp_path / "nothing"))
    done = tunrouter("report")
    assert (done.code, done.out) == (1, "")
    assert f"there is no {tmp_path}/nothing/{DATABASE}" in done.err
    assert not (tmp_path / "nothing").exists()


def test_an_agent_that_is_there_and_does_not_answer_is_not_taken_for_none(
    tunrouter: Run, agent: Stub, state: Path, tmp_path: Path
) -> None:
    agent.answer = AgentError("the agent is still starting", "try again in a second")
    assert tunrouter("report") == (1, "", "tunrouter: the agent is still starting; try again in a second\n")
    done = tunrouter("report", "--socket", str(tmp_path / "other.sock"))
    assert (done.code, done.out) == (3, "")


def test_the_agent_is_where_the_configuration_says(
    tunrouter: Run, agent: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"run_dir = '{tmp_path}'\n")
    monkeypatch.delenv("TUNROUTER_RUN_DIR")
    monkeypatch.setattr("tunrouter.cli.settings.DEFAULT_RUN_DIR", str(tmp_path / "elsewhere"))
    assert json.loads(tunrouter("report", "--config", str(file)).out)["running"]


def test_a_key_that_is_gone_is_no_error(tunrouter: Run, state: Path) -> None:
    shutil.move(state / KEY, state / "moved")
    assert json.loads(tunrouter("report").out)["disk"]["id"] == ""
    (state / KEY).write_bytes(b"short")
    assert "has 5 bytes instead of 32" in tunrouter("report").err
