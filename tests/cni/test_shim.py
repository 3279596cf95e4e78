"""The plugin as a runtime runs it, with the agent and without it."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import subprocess
import threading
import time
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.cni import programs
from tests.cni.conftest import Answering
from tests.cni.shim import AWAY, NOTE, POD, RESULT, VERBS, Runtime, agrees, refusal, reply
from tests.cni.structure import version_faults
from tunrouter.agent.notes import DRAFT_SECONDS
from tunrouter.cni.request import VERSIONS


# --- VERSION ---------------------------------------------------------------------------------------------------------
def test_the_plugin_can_be_run_by_a_runtime(runtime: Runtime) -> None:
    assert stat.S_IMODE(runtime.program.stat().st_mode) & 0o111 == 0o111
    read = runtime.program.read_bytes()
    if runtime.kind == "python":
        # Nothing of the user's is loaded, and names are UTF-8 in every locale.
        assert read.startswith(b"#!/usr/bin/python3 -ISBXutf8\n")
    else:
        assert read.startswith(b"\x7fELF")
        assert b"/ld-linux" not in read, "it needs nothing of the host"


@pytest.mark.parametrize("version", [*VERSIONS, "0.1.0", "0.2.0", "9.9.9"])
def test_version_is_answered_without_an_agent(runtime: Runtime, version: str) -> None:
    said = runtime.run("VERSION", json.dumps({"cniVersion": version}).encode(), {})
    assert not said.failed
    assert version_faults(said.output, version) == []
    assert said.output == {"cniVersion": version, "supportedVersions": list(VERSIONS)}


def test_version_without_a_version_says_the_newest(runtime: Runtime) -> None:
    said = runtime.run("VERSION", b"{}", {})
    assert (said.failed, version_faults(said.output, VERSIONS[-1])) == (False, [])


@pytest.mark.parametrize("stdin", [b"", b"\n"])
def test_version_needs_no_input_for_before_1_0_0_it_had_no_parameters(runtime: Runtime, stdin: bytes) -> None:
    said = runtime.run("VERSION", stdin, {})
    assert (said.failed, version_faults(said.output, VERSIONS[-1])) == (False, [])


def test_version_needs_no_network(runtime: Runtime) -> None:
    said = runtime.run("VERSION", json.dumps({"cniVersion": "1.0.0", "name": 5, "socket": 5}).encode())
    assert (said.failed, said.output["cniVersion"]) == (False, "1.0.0")


@pytest.mark.parametrize(("kind", "milliseconds"), [("compiled", 15), ("python", 150)])
def test_a_pod_hardly_waits_for_its_start(kind: str, milliseconds: float) -> None:
    """Ten times of what they take while nothing else runs, for machines are shared."""

    def take() -> float:
        before = time.perf_counter()
        subprocess.run(
            [programs.program(kind)], env={"CNI_COMMAND": "VERSION"}, input=b"", capture_output=True, check=True
        )
        return time.perf_counter() - before

    assert median(take() for _ in range(20)) * 1000 < milliseconds


# --- with an agent ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", VERBS)
def test_the_agents_words_are_the_plugins(runtime: Runtime, answering: Answering, verb: str) -> None:
    agent = answering(reply(RESULT))
    said = runtime.run(verb)
    assert (said.failed, said.output) == (False, RESULT)
    agent.answer = reply(None)
    said = runtime.run(verb)
    assert (said.failed, said.output) == (False, None)
    agent.answer = reply({"cniVersion": "1.1.0", "code": 7, "msg": "a\u00e9\ud800"}, failed=True)
    said = runtime.run(verb)
    assert said.error() == 7
    assert len(agent.lines) == 3
    assert not runtime.notes.exists()


def test_the_agent_gets_the_configuration_and_the_variables_of_cni_and_no_others(
    runtime: Runtime, answering: Answering
) -> None:
    agent = answering(reply(RESULT))
    runtime.run(
        "ADD", environment=POD | {"CNI_ARGS": "IP=10.32.1.5", "PATH": "/bin", "SECRET": "x"}, keyA=["\u00e9", None]
    )
    assert agent.call.environment == {"CNI_COMMAND": "ADD", **POD, "CNI_ARGS": "IP=10.32.1.5"}
    assert json.loads(bytes(agent.call.config)) == runtime.config("ADD", keyA=["\u00e9", None])
    assert agent.lines[0].count(b"\n") == 1


def test_an_answer_may_be_large_and_come_in_pieces(runtime: Runtime, answering: Answering) -> None:
    large = RESULT | {"routes": [{"dst": f"10.{n % 250}.0.0/16"} for n in range(50_000)]}
    answering(reply(large))
    assert runtime.run("ADD").output == large


def test_an_agent_that_comes_back_while_add_waits_is_asked(runtime: Runtime, answering: Answering) -> None:
    timer = threading.Timer(1.0, answering, (reply(RESULT),))
    timer.start()
    try:
        said = runtime.run("ADD")
    finally:
        timer.join()
    assert (said.failed, said.output) == (False, RESULT)


# --- with an agent that is no help -----------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", VERBS)
def test_what_the_agent_refuses_is_to_be_tried_again_or_noted(
    runtime: Runtime, answering: Answering, verb: str
) -> None:
    answering(refusal("only root may change the network"))
    said = runtime.run(verb)
    agrees(runtime, said, verb)
    if verb != "DEL":
        assert said.output["msg"] == "only root may change the network"


@pytest.mark.parametrize("answer", [b"", b'{"version":1,"res', b'{"version":1,"result":{"output":'], ids=repr)
@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_hangs_up_is_away(runtime: Runtime, answering: Answering, verb: str, answer: bytes) -> None:
    answering(answer)
    agrees(runtime, runtime.hastily(verb), verb)


GARBAGE = (
    *(b"\n", b"\0\n", b"HTTP/1.1 400 Bad Request\r\n", b"\xff\xfe\n", b"{}\n", b'{"version":1}\n', b"{} {}\n"),
    *(b'{"version":1,"result":null}\n', b'{"result":5}\n', b'{"result":[]}\n', b'{"error":{}}\n', b'{"error":null}\n'),
    *(b"[]\n", b"null\n", b"5\n", b'"text"\n', b"true\n", b'{"error":"text"}\n', b'{"error":["text"]}\n'),
    *(b'{"error":{"what":5}}\n', b"[" * 100_000 + b"\n"),
)


@pytest.mark.parametrize("answer", GARBAGE, ids=lambda answer: repr(answer[:30]))
@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_answers_garbage_is_away(
    runtime: Runtime, answering: Answering, verb: str, answer: bytes
) -> None:
    answering(answer)
    agrees(runtime, runtime.hastily(verb), verb)


@pytest.mark.parametrize("output", [5, "text", [], [{}], True])
def test_what_is_no_object_is_never_a_plugins_output(runtime: Runtime, answering: Answering, output: Any) -> None:
    answering(reply(output))
    agrees(runtime, runtime.hastily("ADD"), "ADD")


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_is_silent_is_away(runtime: Runtime, answering: Answering, verb: str) -> None:
    answering(None)
    before = time.monotonic()
    agrees(runtime, runtime.hastily(verb), verb)
    assert time.monotonic() - before < 5


def test_a_socket_that_nobody_listens_on_is_away(runtime: Runtime) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(runtime.socket))
        agrees(runtime, runtime.hastily("STATUS"), "STATUS")
    runtime.socket.unlink()
    runtime.socket.write_text("no socket")
    agrees(runtime, runtime.hastily("CHECK"), "CHECK")


@pytest.mark.parametrize("path", ["", "/" + "a" * 500, "/\0a", "relative"], ids=lambda path: repr(path[:10]))
def test_a_socket_that_is_no_path_is_away(runtime: Runtime, path: str) -> None:
    agrees(runtime, runtime.hastily("CHECK", socket=path), "CHECK")
    agrees(runtime, runtime.hastily("DEL", socket=path), "DEL")


# --- without an agent ------------------------------------------------------------------------------------------------
def test_add_waits_at_least_as_long_as_an_agent_is_replaced(runtime: Runtime) -> None:
    before = time.monotonic()
    said = runtime.run("ADD")
    seconds = time.monotonic() - before
    assert said.error() == 11
    assert str(runtime.socket) in said.output["msg"]
    assert 9 < seconds < 12


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_the_network_names_the_next_step_in_its_cluster(runtime: Runtime, answering: Answering, verb: str) -> None:
    said = runtime.hastily(verb, fix="see: kubectl get pods")
    assert said.output["details"] == "see: kubectl get pods"
    assert runtime.hastily(verb).output["details"].startswith("see: systemctl status tunrouter")
    assert runtime.hastily(verb, fix=5).error() == 7
    agrees(runtime, runtime.hastily("DEL", fix=5), "DEL")
    answering(refusal("it is leaving"))
    assert runtime.hastily(verb, fix="see: kubectl get pods").output["details"] == "do something"


@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS"])
def test_the_others_do_not_wait(runtime: Runtime, verb: str) -> None:
    before = time.monotonic()
    said = runtime.run(verb)
    assert said.error() == AWAY[verb]
    assert said.output["details"]
    assert time.monotonic() - before < 3


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_an_error_is_in_the_version_that_was_spoken(runtime: Runtime, version: str) -> None:
    assert runtime.hastily("ADD", cniVersion=version).error(version) == 11


@pytest.mark.parametrize("version", ["0.1.0", None, 1, [], {}])
def test_an_error_about_an_unknown_version_is_in_the_newest(runtime: Runtime, version: Any) -> None:
    assert runtime.hastily("GC", cniVersion=version).error() == 11


# --- notes -----------------------------------------------------------------------------------------------------------
def test_a_deletion_without_an_agent_is_noted_once_however_often_it_is_asked_for(runtime: Runtime) -> None:
    for netns in ("/run/netns/blue", "/run/netns/red", ""):
        said = runtime.run("DEL", environment=POD | {"CNI_NETNS": netns})
        assert (said.failed, said.output) == (False, None)
    (path,) = runtime.notes.iterdir()
    assert json.loads(path.read_bytes()) == NOTE
    assert path.suffix == ".json"
    assert runtime.written() == [NOTE]
    assert stat.S_IMODE(runtime.notes.stat().st_mode) == 0o700


def test_each_interface_of_each_container_of_each_network_has_its_own_note(runtime: Runtime) -> None:
    runtime.run("DEL")
    runtime.run("DEL", environment=POD | {"CNI_IFNAME": "net1"})
    runtime.run("DEL", environment=POD | {"CNI_CONTAINERID": "other"})
    runtime.hastily("DEL", name="net2")
    runtime.hastily("DEL", cniVersion="0.3.1", prevResult={"ips": []})
    expected = [NOTE, NOTE | {"interface": "net1"}, NOTE | {"container": "other"}, NOTE | {"network": "net2"}]
    assert sorted(map(str, runtime.written())) == sorted(map(str, expected))


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_IFNAME"])
def test_a_deletion_of_nothing_is_not_noted(runtime: Runtime, variable: str) -> None:
    said = runtime.run("DEL", environment={key: value for key, value in POD.items() if key != variable})
    assert said.error() == 4
    assert variable in said.output["msg"]
    assert not runtime.notes.exists()


@pytest.mark.parametrize("name", ["", None, 5, [], {}])
def test_a_deletion_of_no_network_is_the_configurations_fault(runtime: Runtime, name: Any) -> None:
    assert runtime.hastily("DEL", name=name).error() == 7
    assert not runtime.notes.exists()


def test_a_deletion_that_cannot_be_noted_fails_so_that_the_runtime_comes_again(runtime: Runtime) -> None:
    runtime.notes.write_text("no directory")
    said = runtime.run("DEL")
    assert said.error() == 5
    assert str(runtime.notes) in said.output["msg"]
    runtime.notes.unlink()
    assert not runtime.run("DEL").failed


@pytest.mark.parametrize(
    ("notes", "code"),
    [("", 5), ("/proc/nowhere", 5), ("/dev/null/a", 5), ("/\0", 5), ("/\ud800", 6), (5, 7), (None, 7), ([], 7)],
    ids=repr,
)
def test_notes_that_are_no_directory_are_an_error(runtime: Runtime, notes: Any, code: int) -> None:
    assert runtime.hastily("DEL", notes=notes).error() == code


FULL = {
    "python": {
        "fsync": ("os.fsync(file.fileno())", "raise OSError(28, os.strerror(28))"),
        "rename": ('os.rename(fresh, f"{path}.json")', "raise OSError(28, os.strerror(28))"),
    },
    "compiled": {
        "fsync": ("return !fsync(file)", "return errno = ENOSPC, false"),
        "rename": ("!rename(fresh, path)", "!(path && (errno = ENOSPC))"),
    },
}
"""What fails on a disk without room."""


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_note_is_whole_or_leaves_nothing(runtime: Runtime, tmp_path: Path, broken: str) -> None:
    program = programs.variant(runtime.kind, tmp_path / "full", [FULL[runtime.kind][broken]])
    said = runtime.run("DEL", program=program)
    assert said.error() == 5
    assert "No space left on device" in said.output["msg"]
    assert list(runtime.notes.iterdir()) == []
    assert not runtime.run("DEL").failed
    assert runtime.written() == [NOTE]


def test_a_note_that_cannot_be_written_to_its_end_leaves_nothing(runtime: Runtime) -> None:
    variables = {"CNI_COMMAND": "DEL", **POD}
    text = json.dumps(runtime.config("DEL")).encode()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    said = runtime.execute([runtime.program], variables, text, preexec_fn=limit)
    assert said.error() == 5
    assert "File too large" in said.output["msg"]
    assert list(runtime.notes.iterdir()) == []


def test_a_note_that_cannot_take_its_place_leaves_nothing(runtime: Runtime) -> None:
    name = sha256(json.dumps(NOTE, separators=(",", ":")).encode()).hexdigest()[:32]
    (runtime.notes / f"{name}.json").mkdir(parents=True)
    said = runtime.run("DEL")
    assert said.error() == 5
    assert said.output["msg"].endswith(f", and {runtime.notes} cannot be written: Is a directory")
    assert [path.name for path in runtime.notes.iterdir()] == [f"{name}.json"]


def test_a_plugin_that_died_while_it_wrote_disturbs_nobody(runtime: Runtime) -> None:
    runtime.run("DEL")
    (note,) = runtime.notes.iterdir()
    note.rename(note.with_suffix(".4711"))
    assert runtime.written() == []
    assert not runtime.run("DEL").failed
    assert runtime.written() == [NOTE]


KILLED = {
    "python": ("os.fsync(file.fileno())", "os.kill(os.getpid(), 9)"),
    "compiled": ("return !fsync(file)", "__builtin_trap(); return !file"),
}
"""What ends it between writing a note and putting it into its place."""


def test_what_a_killed_plugin_has_left_goes_when_nobody_can_be_writing_it(runtime: Runtime, tmp_path: Path) -> None:
    runtime.run("DEL", environment=POD | {"CNI_IFNAME": "net1"})
    (note,) = runtime.notes.iterdir()
    program = programs.variant(runtime.kind, tmp_path / "killed", [KILLED[runtime.kind]])
    text, environment = json.dumps(runtime.config("DEL")).encode(), {"CNI_COMMAND": "DEL", **POD}
    assert subprocess.run([program], input=text, env=environment, capture_output=True, check=False).returncode < 0
    (draft,) = set(runtime.notes.iterdir()) - {note}
    others = [runtime.notes / name for name in ("readme.1", f"{draft.stem}.bad", f"{draft.stem}.1x", f"{draft.stem}.7")]
    for other in others[:-1]:
        other.touch()
        os.utime(other, (0, 0))
    others[-1].mkdir()
    os.utime(others[-1], (0, 0))
    assert len(runtime.written()) == 1
    assert draft.exists(), "it may be under way"
    os.utime(draft, (0, time.time() - DRAFT_SECONDS - 1))
    assert len(runtime.written()) == 1
    assert set(runtime.notes.iterdir()) == {note, *others}, "the rest is not ours to remove"
