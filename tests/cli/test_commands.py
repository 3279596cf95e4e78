"""Each command against a stub agent: what it asks, what it prints, and its exit code."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Done, Run
from tests.cli.test_render import ADDRESSES, CONNECTIONS, IPAM, SNAPSHOT, SUMMARY
from tests.edge.serving import Stub
from tunrouter import __version__
from tunrouter.cli import completion, reset
from tunrouter.cli.run import run
from tunrouter.edge.api import (
    AttachCall,
    Attachment,
    ConnectCall,
    DetachCall,
    ExposeCall,
    Exposed,
    ForgetCall,
    HideCall,
    Lease,
    Leases,
    PsCall,
)
from tunrouter.edge.store import Store
from tunrouter.errors import AgentError, ConfigError

ROOT = Path(__file__).parent.parent.parent


def test_status(tunrouter: Run, agent: Stub) -> None:
    assert tunrouter("status") == Done(0, SUMMARY + "\n", "")
    assert tunrouter("status", "connections").out == CONNECTIONS + "\n"
    assert tunrouter("status", "targets").out == "192.0.2.2\nhost-5\n"
    assert tunrouter("status", "peers", "-o", "wide").out.count("id=") == 2


def test_weaves_local_in_front_changes_nothing(tunrouter: Run, agent: Stub) -> None:
    assert tunrouter("--local", "status") == tunrouter("status")
    assert tunrouter("--local", "statu").err == tunrouter("statu").err


def test_an_empty_report_prints_nothing(tunrouter: Run, agent: Stub) -> None:
    agent.answer = msgspec.structs.replace(SNAPSHOT, targets=(), connections=())
    assert tunrouter("status", "targets") == tunrouter("status", "connections") == Done(0, "", "")


def test_status_as_json_names_its_schema(tunrouter: Run, agent: Stub) -> None:
    whole = json.loads(tunrouter("status", "-o", "json").out)
    assert whole == json.loads(msgspec.json.encode(SNAPSHOT))
    assert whole["schema"] == 1
    part = json.loads(tunrouter("status", "peers", "-o", "json").out)
    assert part == {"schema": 1, "peers": whole["peers"]}


def test_status_of_addresses(tunrouter: Run, agent: Stub) -> None:
    agent.answer = msgspec.structs.replace(SNAPSHOT, ipam=IPAM)
    assert tunrouter("status", "ipam") == Done(0, ADDRESSES + "\n", "")
    found = json.loads(tunrouter("status", "ipam", "-o", "json").out)
    assert found == {"schema": 1, "ipam": json.loads(msgspec.json.encode(IPAM))}


def test_the_socket_may_be_given(tunrouter: Run, agent: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNROUTER_RUN_DIR", "/nowhere")
    assert tunrouter("status").code == 3
    assert tunrouter("status", "--socket", str(tmp_path / "tunrouter.sock")).code == 0


def test_without_an_agent(tunrouter: Run, tmp_path: Path) -> None:
    line = f"tunrouter: no agent answers on {tmp_path}/tunrouter.sock; start it with: sudo tunrouter up\n"
    commands = "status|connect a|forget a|detach 1|ps|ps --all|whois 10.32.1.2|rmpeer a|leave|electors|electors --set a"
    for command in [f"attach {os.getpid()}", "expose", "hide", "top", "ping a", *commands.split("|")]:
        assert tunrouter(*command.split()) == Done(3, "", line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frob"], "no such command 'frob'; see: tunrouter --help"),
        (["status", "peeers"], "report 'peeers' is not known; did you mean peers?"),
        (["status", "-o", "yaml"], "output 'yaml' is not known; give one of text, wide, json"),
        (["status", "--frob"], "no such option: --frob; see: tunrouter status --help"),
        (["connect"], "missing argument 'PEER'; see: tunrouter connect --help"),
        (["connect", "a b"], "expected peers as HOST, HOST:PORT or [IPV6]:PORT, got 'a b'; for example: 192.0.2.7"),
        (["forget", "\x1b[31m"], r"HOST:PORT or [IPV6]:PORT, got '\x1b[31m'; for example: 192.0.2.7"),
        (["attach", "no-such-netns"], "no network namespace '/run/netns/no-such-netns', and no container of that name"),
        (["attach", "4194305"], "no network namespace '/proc/4194305/ns/net'"),
        (["attach", "a\0b"], "names no network namespace"),
        (["attach", "1", "--ip", "10.32"], "--ip: expected an IPv4 address, got '10.32'; for example: --ip 10.32.1.7"),
        (["attach", "1", "--ip", ""], "--ip: expected an IPv4 address, got ''"),
        (["attach", "1", "--interface", "a/b"], "--interface: expected a device name"),
        (["expose", "10.32.1.9/24"], "address: expected an IPv4 address, got '10.32.1.9/24'; for example: 10.32.1.7"),
        (["expose", "-o", "wide"], "output 'wide' is not known; give one of text, json"),
        (["expose", "--without-masquerade"], "no such option: --without-masquerade; see: tunrouter expose --help"),
        (["hide", ""], "address: expected an IPv4 address, got ''"),
        (["ps", "-o", "yaml"], "output 'yaml' is not known"),
        (["whois"], "missing argument 'IP'; see: tunrouter whois --help"),
        (["whois", "web"], "address: expected an IPv4 address, got 'web'; for example: 10.32.1.7"),
        (["rmpeer"], "missing argument 'PEER'; see: tunrouter rmpeer --help"),
        (["rmpeer", "a", "\x1b[31m"], r"1 to 64 bytes of printable text, got 'a \x1b[31m'; see: tunrouter status ipam"),
        (
            ["electors", "--set", "a,b"],
            "--set: expected the names of 1, 3 or 5 different nodes, got 'a,b'; for example",
        ),
        (["electors", "--set", "a,b,a"], "1, 3 or 5 different nodes"),
        (["electors", "a"], "unexpected extra argument"),
        (["completion", "bsh"], "shell 'bsh' is not known; did you mean bash?"),
        (["config", "check", "--config", "/absent.toml"], "--config: '/absent.toml' does not exist"),
        (["config", "show", "-o", "yaml"], "output 'yaml'"),
        (["ping"], "missing argument 'NAME|IP'; see: tunrouter ping --help"),
        (["ping", "a", "-c", "0"], "--count: expected a whole number from 1 to 1000000000, got '0'"),
        (["ping", "a", "-c", "\u0661"], "--count: expected a whole number"),
        (["ping", "a", "-i", "nan"], "--interval: expected a number from 0.02 to 3600, got 'nan'"),
        (["ping", "a", "-W", "11"], "--wait: expected a number from 0.02 to 10, got '11'"),
        (["ping", "a", "-o", "wide"], "output 'wide' is not known; give one of text, json"),
        (["top", "-i", "\x1b[2J"], r"--interval: expected a number from 0.1 to 3600, got '\x1b[2J'"),
        (["top", "--sort", "rtd"], "sort 'rtd' is not known; did you mean rtt?"),
        (["top", "--count", "-1"], "--count: expected a whole number"),
        (["report", "-o", "yaml"], "output 'yaml' is not known"),
    ],
)
def test_usage_is_one_line_and_code_2(tunrouter: Run, arguments: list[str], line: str) -> None:
    done = tunrouter(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("tunrouter: ")
    assert line in done.err
    assert done.err.removesuffix("\n").isprintable()


def test_connect_and_forget(tunrouter: Run, agent: Stub) -> None:
    agent.answer = None
    assert tunrouter("connect", "a", "192.0.2.7:1", "a") == Done(0, "", "")
    tunrouter("connect", "--replace", "b")
    tunrouter("forget", "a")
    assert agent.calls == [ConnectCall(("a", "192.0.2.7:1")), ConnectCall(("b",), replace=True), ForgetCall(("a",))]


def test_expose_prints_the_addresses_and_hide_nothing(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Exposed(("10.32.1.9", "10.32.1.2"))
    assert tunrouter("expose", "10.32.1.9", "10.32.1.2/32", "10.32.1.9") == Done(0, "10.32.1.9\n10.32.1.2\n", "")
    assert json.loads(tunrouter("expose", "-o", "json").out) == {"schema": 1, "addresses": ["10.32.1.9", "10.32.1.2"]}
    agent.answer = None
    assert tunrouter("hide") == tunrouter("hide", "10.32.1.9/32") == Done(0, "", "")
    asked = [ExposeCall(("10.32.1.9", "10.32.1.2")), ExposeCall(), HideCall(), HideCall(("10.32.1.9",))]
    assert agent.calls == asked


def test_what_the_agent_says_against_exposing_is_one_line(tunrouter: Run, agent: Stub) -> None:
    what, fix = "10.32.1.1: it is a gateway", "choose another address, or none"
    agent.answer = AgentError(what, fix)
    assert tunrouter("expose", "10.32.1.1") == Done(1, "", f"tunrouter: {what}; {fix}\n")


def test_attach_prints_the_address(tunrouter: Run, agent: Stub) -> None:
    agent.answer = Attachment("pod", "10.32.1.2/32", "eth0", 1376)
    pid = str(os.getpid())
    assert tunrouter("attach", pid, "--ip", "10.32.1.2/32", "--interface", "eth1") == Done(0, "10.32.1.2\n", "")
    assert agent.calls == [AttachCall(f"/proc/{pid}/ns/net", pid, "10.32.1.2", "eth1")]
    assert json.loads(tunrouter("attach", "/proc/self/ns/net", "-o", "json").out)["mtu"] == 1376


def test_what_is_gone_may_be_detached(tunrouter: Run, agent: Stub) -> None:
    agent.answer = None
    assert tunrouter("detach", "gone-netns").code == 0
    assert agent.calls == [DetachCall("/run/netns/gone-netns", "gone-netns")]


ID = "3f2a9c" + "0" * 58


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It knows one container, `web`, whose process is ours; `stopped` has none."""
    program = tmp_path / "docker"
    program.write_text(
        "#!/bin/sh\n"
        "for name; do :; done; case $name in\n"
        f"web|3f2a9c000000) echo {ID} {os.getpid()};;\n"
        f"stopped) echo {ID} 0;;\n"
        "*) echo 'Error: No such container' >&2; exit 1;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("tunrouter.cli.containers.RUNTIMES", ("docker",))
    return program


def test_a_container_is_attached_by_its_name_or_id(tunrouter: Run, agent: Stub, docker: Path) -> None:
    agent.answer = Attachment("pod", "10.32.1.2/32", "eth0", 1376)
    for name in ("web", "3f2a9c000000"):
        assert tunrouter("attach", name).code == 0
        assert tunrouter("detach", name).code == 0
    path = f"/proc/{os.getpid()}/ns/net"
    assert agent.calls == [AttachCall(path, ID), DetachCall(path, ID)] * 2
    assert tunrouter("attach", "stopped").err == "tunrouter: container 'stopped' does not run; start it first\n"
    assert tunrouter("attach", "db").code == 2
    docker.unlink()
    assert tunrouter("attach", "web").code == 2


def test_a_container_that_is_forgotten_is_detached_by_its_short_id(
    tunrouter: Run, agent: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunrouter.cli.containers.RUNTIMES", ())
    agent.answer = Leases((Lease("10.32.1.4", ID, "eth0", "7a:00:00:00:00:01", "host-1"),))
    assert tunrouter("detach", ID[:12]).code == 0
    assert agent.calls == [PsCall(), DetachCall(f"/run/netns/{ID[:12]}", ID)]


def test_the_agents_refusal_is_one_line_with_its_code(tunrouter: Run, agent: Stub) -> None:
    agent.answer = ConfigError("10.32.9.9 is\x1b[2J\nnot in our block", "leave --ip out")
    done = tunrouter("attach", str(os.getpid()))
    assert done == Done(2, "", "tunrouter: 10.32.9.9 is\\x1b[2J\\nnot in our block; leave --ip out\n")


def test_config_check_and_show(tunrouter: Run, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("block = '10.32.1.0/24'\npassword = ['s3cret', 'older']\n")
    file.chmod(0o600)
    line = f"config: ok ({file}; encrypted; block 10.32.1.0/24)\n"
    assert tunrouter("config", "check", "--config", str(file)) == Done(0, line, "")
    shown = tunrouter("config", "show", "--config", str(file)).out
    assert 'password = ["***","***"]' in shown
    assert f"# {file}: block" in shown
    assert "s3cret" not in shown + tunrouter("config", "show", "--config", str(file), "-o", "json").out


@pytest.mark.parametrize(
    ("toml", "shown"),
    [
        ("", "blocks of /24, founds a cluster alone unless it has one"),
        ("peers = ['a']\nblock_size = 26", "blocks of /26, joins its peers"),
        ("peers = ['a']\ninit_peers = 3", "blocks of /24, a majority of 3 founds"),
        ("peers = ['a']\ninit_peers = 1", "blocks of /24, founds a cluster alone unless it has one"),
        ("seed = ['a', 'b', 'c']", "blocks of /24, first electors a, b, c"),
        ("observer = true", "blocks of /24, joins and never founds"),
    ],
)
def test_config_check_says_how_blocks_are_got(tunrouter: Run, tmp_path: Path, toml: str, shown: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(toml)
    line = f"config: ok ({file}; NOT encrypted: no password is set; {shown})\n"
    assert tunrouter("config", "check", "--config", str(file)) == Done(0, line, "")


def test_config_check_finds_a_mistyped_key(tunrouter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tunrouter("genkey").out.strip()
    assert key.startswith("trk1-")
    monkeypatch.setenv("TUNROUTER_BLOCK", "10.32.1.0/24")
    monkeypatch.setenv("TUNROUTER_PASSWORD", key)
    assert tunrouter("config", "check").code == 0
    monkeypatch.setenv("TUNROUTER_PASSWORD", key[:-1] + ("a" if key[-1] != "a" else "b"))
    done = tunrouter("config", "check")
    assert done.code == 2
    assert "checksum" in done.err
    assert key[5:20] not in done.err


def test_a_password_in_the_environment_is_read_once(tunrouter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNROUTER_BLOCK", "10.32.1.0/24")
    monkeypatch.setenv("WEAVE_PASSWORD", "s3cret")
    assert "encrypted" in tunrouter("config", "check").out
    assert "WEAVE_PASSWORD" not in os.environ


def test_version(tunrouter: Run) -> None:
    assert tunrouter("version") == tunrouter("--version") == Done(0, f"tunrouter {__version__}\n", "")


def test_an_unexpected_error_is_one_line(tunrouter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "script", lambda _: 1 / 0)
    done = tunrouter("completion", "bash")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "internal error: ZeroDivisionError" in done.err
    monkeypatch.setenv("TUNROUTER_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run(["completion", "bash"])


def test_ctrl_c(tunrouter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(completion, "script", interrupt)
    assert tunrouter("completion", "bash") == Done(130, "", "")


def test_a_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m tunrouter.cli completion zsh | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.root
def test_reset_refuses_while_an_agent_runs(tunrouter: Run, agent: Stub) -> None:
    done = tunrouter("reset")
    assert done.code == 1
    assert f"the agent is running (pid {os.getpid()}); stop it first, or run: tunrouter reset --force" in done.err


@pytest.mark.root
def test_reset_stops_the_agent_when_told_to(tunrouter: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNROUTER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("tunrouter.host.reset", lambda bridge, tun, port: [f"removed {bridge} {tun} {port}"])
    command = [sys.executable, "-m", "tests.cli.up_with_stub", "up", "--block", "10.32.1.0/24"]
    environ = dict(os.environ, TUNROUTER_RUN_DIR=str(tmp_path))
    with subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        done = tunrouter("reset", "--force", "--bridge", "br9")
        assert process.wait(10) == 0
    assert done == Done(0, f"stopping the agent (pid {process.pid})\nremoved br9 tunrouter0 6783\n", "")
    assert tunrouter("reset").out == "removed weave tunrouter0 6783\n"


@pytest.mark.root
def test_a_purge_forgets_the_node_and_the_runtimes_network_and_nothing_of_others(
    tunrouter: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = {name: tmp_path / name for name in ("state", "run", "cni_bin", "cni_conf")}
    for name, path in places.items():
        monkeypatch.setenv(f"TUNROUTER_{name.upper()}_DIR", str(path))
    monkeypatch.setattr("tunrouter.host.reset", lambda bridge, tun, port: [])
    assert tunrouter("cni", "install").code == 0
    with closing(Store(places["state"])) as store:
        store.identity(bytes(32))
    (places["state"] / "cni").mkdir()
    (places["state"] / "cni" / "0.json").touch()
    (places["state"] / "state.db.corrupt-1").touch()
    places["run"].mkdir()
    (places["run"] / "tunrouter.sock").touch()
    (places["run"] / "theirs").touch()
    assert tunrouter("reset").out == "nothing to remove\n", "which is all in the kernel"
    said = tunrouter("reset", "--purge").out.splitlines()
    assert {path for path in tmp_path.rglob("*") if not path.is_dir()} == {places["run"] / "theirs"}
    assert not places["state"].exists()
    assert f"file {places['state'] / 'identity.key'}" in said
    assert f"file {places['cni_conf'] / '05-tunrouter.conflist'}" in said
    assert tunrouter("reset", "--purge").out == "nothing to remove\n"


@pytest.mark.root
def test_reset_of_an_agent_that_does_not_stop(tunrouter: Run, agent: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as stubborn:
        monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
        monkeypatch.setattr(reset, "STOP_SECONDS", 0.05)
        monkeypatch.setattr("tunrouter.edge.api.client.Client.pid", lambda _: stubborn.pid)
        done = tunrouter("reset", "--force")
        stubborn.kill()
    assert done.code == 1
    assert f"the agent (pid {stubborn.pid}) does not stop; look at its log, or run: kill -9 {stubborn.pid}" in done.err


def takes_less_than(seconds: float, *arguments: str) -> bool:
    """Of the processor, in one of ten tries: wall time would tell of whatever else the machine does."""
    return any(processor_seconds(*arguments) < seconds for _ in range(10))


def processor_seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "tunrouter.cli", *arguments], cwd=ROOT, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_help_takes_less_than_200_ms() -> None:
    assert takes_less_than(0.2, "--help")


def test_status_takes_less_than_150_ms(agent: Stub) -> None:
    assert takes_less_than(0.15, "status")


def test_help_imports_only_the_parser() -> None:
    program = (
        "import sys; from tunrouter.cli.run import run; run(['--help']); "
        "heavy = {'msgspec', 'asyncio', 'nacl', 'pyroute2', 'uvloop', 'rich', 'tunrouter.config', 'socket'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
