"""What comes into the plugin: an answer for everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cni.conftest import Answering
from tests.cni.shim import POD, RESULT, VERBS, Runtime, reply
from tunrouter.edge.api.server import REQUEST_BYTES


@pytest.mark.parametrize("command", ["", "add", "DELETE", "\u00e9" * 1000, "\n"], ids=lambda text: ascii(text[:10]))
def test_a_command_that_is_none_is_an_error_that_names_the_variable(runtime: Runtime, command: str) -> None:
    said = runtime.run(command)
    assert said.error() == 4
    assert "CNI_COMMAND" in said.output["msg"]


def test_no_environment_at_all_is_an_error(runtime: Runtime) -> None:
    assert runtime.execute([runtime.program], {}, b"{}").error() == 4


STDIN = {
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "list of objects": b'[{"cniVersion":"1.1.0"}]',
    "text": b'"text"',
    "number": b"1",
    "true": b"true",
    "half": b'{"cniVersion":"1.1.0"',
    "binary": bytes(range(256)) * 10,
    "bad utf-8": b'{"name":"\xff"}',
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "huge number": b'{"mtu":' + b"9" * 5000 + b"}",
    "10 MB": b'{"name":"' + b"a" * 10_000_000 + b'"}',
    "10 MB of spaces": b" " * 10_000_000,
}


@pytest.mark.parametrize("stdin", STDIN.values(), ids=STDIN.keys())
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_what_is_no_network_configuration_cannot_be_decoded(runtime: Runtime, verb: str, stdin: bytes) -> None:
    said = runtime.run(verb, stdin)
    assert said.error() == 6
    assert len(said.output["msg"]) < 300


BEYOND_JSON = ("NaN", "Infinity", "-Infinity", "1e400", '"\\ud800"', '"\\udc00\\ud800"', "[" * 5000 + "]" * 5000)


@pytest.mark.parametrize("value", BEYOND_JSON, ids=lambda text: text[:12])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_what_the_agent_could_not_decode_is_not_given_to_it(
    runtime: Runtime, answering: Answering, verb: str, value: str
) -> None:
    agent = answering(reply(None))
    stdin = json.dumps(runtime.config(verb))[:-1] + f', "mtu": {value}}}'
    said = runtime.hastily(verb, stdin.encode())
    if agent.lines:
        assert agent.understood
    else:
        assert said.error() == 6


def test_a_mebibyte_of_configuration_reaches_the_agent(runtime: Runtime, answering: Answering) -> None:
    agent = answering(reply(RESULT))
    empty = len(json.dumps(runtime.config(keyA="")))
    said = runtime.run("ADD", keyA="a" * ((1 << 20) - empty))
    assert (said.failed, said.output) == (False, RESULT)
    assert len(agent.lines[0]) <= REQUEST_BYTES


OTHERS: dict[str, dict[Any, Any]] = {
    "CNI_ARGS": {"CNI_ARGS": b"FOO=\xff\xfe"},
    "somebody else's": {"OTHER": b"\xff"},
    "a name": {b"CNI_\xff": "x"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("verb", VERBS)
def test_an_environment_that_is_no_utf_8_disturbs_nobody(
    runtime: Runtime, answering: Answering, verb: str, other: dict[Any, Any]
) -> None:
    agent = answering(reply(None))
    said = runtime.run(verb, environment=POD | other)
    assert (said.failed, said.output) == (False, None)
    assert agent.understood
    assert agent.call.environment["CNI_COMMAND"] == verb
    assert "OTHER" not in agent.call.environment


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
def test_a_name_that_is_no_utf_8_does_not_become_another(runtime: Runtime, answering: Answering, variable: str) -> None:
    agent = answering(reply(RESULT))
    said = runtime.run("ADD", environment=POD | {variable: b"a\xff"})
    if agent.lines:
        assert agent.call.environment[variable].isascii() is False
    else:
        assert said.error() == 4
        assert variable in said.output["msg"]


def test_a_deletion_whose_names_are_no_utf_8_leaves_only_what_can_be_worked_off(runtime: Runtime) -> None:
    runtime.run("DEL", environment=POD | {"CNI_IFNAME": b"eth\xff"})
    noted = list(runtime.notes.iterdir()) if runtime.notes.exists() else []
    assert len(runtime.written()) == len(noted)


@pytest.mark.parametrize("key", ["socket", "notes"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["/run"]], ids=repr)
def test_a_path_that_is_no_text_is_no_network(runtime: Runtime, key: str, value: Any) -> None:
    said = runtime.hastily("DEL", **{key: value})
    assert said.error() == 7
    assert key in said.output["msg"]


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "tr_TR.UTF-8", "nonsense"])
def test_the_locale_does_not_matter(runtime: Runtime, locale: str) -> None:
    said = runtime.run("CHECK", environment=POD | {"LC_ALL": locale, "LANG": locale}, socket="/run/\u00e9\u0131.sock")
    assert said.error() == 11


def test_no_input_at_all_is_an_io_failure(runtime: Runtime) -> None:
    closed = ["/bin/sh", "-c", f"exec {runtime.program} <&-"]
    assert runtime.execute(closed, {"CNI_COMMAND": "ADD", **POD}).error() == 5


def test_what_a_user_has_installed_is_not_loaded(runtime: Runtime, tmp_path: Path) -> None:
    for name in ("json", "socket", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)\n")
    said = runtime.run(
        "STATUS", environment=POD | {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "x", "HOME": str(tmp_path)}
    )
    assert said.error() == 50
