"""The compiled plugin and the one in Python do the same: what they answer, what the agent hears, what is noted.

Beside them runs the compiled one under gcc's sanitizers. What is wrong with broken JSON each says in its own words.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st

from tests.cni import programs
from tests.cni.json_texts import anything, changed, objects, texts, values
from tests.cni.shim import POD, RESULT, VERBS, Agent, Runtime, Said, refusal, reply

BROKEN = "the network configuration is no JSON: "
pytestmark = pytest.mark.slow
SANITIZED = {"ASAN_OPTIONS": "exitcode=99", "UBSAN_OPTIONS": "print_stacktrace=1"}


class Seen(NamedTuple):
    """All that an invocation does."""

    failed: bool
    output: Any
    first: Any
    """What the agent was asked first."""
    again: Any
    """And last, if that was more than once."""
    notes: dict[str, tuple[int, bytes]]
    """Below the directory all that there is, with its mode."""


class Twins:
    """All programs of one lot, run one after the other on the same paths."""

    def __init__(self, directory: Path, made: dict[str, Path]) -> None:
        self.directory = directory
        self.runtimes = {kind: Runtime(directory, kind, program, program) for kind, program in made.items()}
        self.agent: Agent | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "api.sock"

    @property
    def notes(self) -> Path:
        return self.directory / "notes"

    def see(self, stdin: bytes, environment: dict[Any, Any]) -> Seen:
        """What all did, which was the same."""
        seen = [self._see(runtime, stdin, environment) for runtime in self.runtimes.values()]
        for other in seen[1:]:
            assert other._replace(again=seen[0].again) == seen[0]
            # A machine that is slow leaves one of them no time to ask twice.
            assert None in {other.again, seen[0].again} or other.again == seen[0].again
        return seen[0]

    def _see(self, runtime: Runtime, stdin: bytes, environment: dict[Any, Any]) -> Seen:
        if self.agent is not None:
            self.agent.lines.clear()
        shutil.rmtree(self.notes, ignore_errors=True)
        said = runtime.execute([runtime.program], {**environment, **SANITIZED}, stdin, cwd=self.directory)
        lines = [] if self.agent is None else list(map(meant, self.agent.lines))
        asked = (lines[0] if lines else None, lines[-1] if lines[1:] else None)
        return Seen(said.failed, said_meant(said), *asked, tree(self.notes))


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    found = [directory, *directory.rglob("*")] if directory.exists() else []
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in found
    }


def meant(text: bytes) -> str:
    """Numbers and names that come twice are written in more than one way."""
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    return json.dumps(json.loads(text))


def said_meant(said: Said) -> str:
    if said.failed and said.output and str(said.output.get("msg")).startswith(BROKEN):
        assert said.error(said.output["cniVersion"]) == 6
        return BROKEN
    return json.dumps(said.output)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, hasty: dict[str, Path]) -> dict[str, Path]:
    sanitized = tmp_path_factory.mktemp("sanitized") / "hasty"
    changes = programs.HASTY["compiled"]
    return {**hasty, "sanitized": programs.variant("compiled", sanitized, changes, programs.SANITIZERS)}


@pytest.fixture
def twins(tmp_path: Path, made: dict[str, Path]) -> Twins:
    return Twins(tmp_path, made)


@pytest.fixture
def asked(twins: Twins) -> Iterator[Twins]:
    """With an agent."""
    twins.agent = Agent(twins.socket, reply(RESULT))
    yield twins
    twins.agent.close()


# --- what comes in ---------------------------------------------------------------------------------------------------
odd_commands = ("", "add", "it's", '"', "it's \"", "\\", "\n\r\t\x01\x7f", "\u00e9\u3042\U0001f600" * 9)
commands = st.sampled_from((*VERBS, "VERSION")) | st.sampled_from(odd_commands)
odd_bytes = (b"", b"\xc3\xa9", b"a\xff", b"\xf0\x9f\x98", b"\xed\xa0\x80z", b"\xc0\x80", b"\xe3\x81\x82\x80")
raw = st.binary(max_size=30).map(lambda value: value.replace(b"\0", b"")) | st.sampled_from(odd_bytes)


odd_variables: dict[Any, st.SearchStrategy[Any]] = {name.encode(): raw | st.just(b"a") for name in POD}
odd_variables |= {b"CNI_ARGS": raw, b"OTHER": raw, b"LC_ALL": raw}
odd_environments: st.SearchStrategy[dict[Any, Any]] = st.builds(
    lambda command, others: {b"CNI_COMMAND": command, **others},
    commands.map(str.encode) | raw, st.fixed_dictionaries({}, optional=odd_variables),
)  # fmt: skip


def environments(*verbs: str) -> st.SearchStrategy[dict[Any, Any]]:
    usual: st.SearchStrategy[dict[Any, Any]] = st.sampled_from(verbs).map(lambda verb: {"CNI_COMMAND": verb, **POD})
    return st.one_of(usual, usual, odd_environments)


NOWHERE: tuple[Any, ...] = (
    "",
    "/dev/null/a",
    "/\0a",
    "\0abstract",
    "/proc/nowhere/a",
    "/proc/" + "a" * 200,
    5,
    None,
    [],
    {},
)


BELOW = ("/", "//a/./b", "/a/b/c", "/a//", "/a/.", "/\u00e9/../b", "/b\0", "/" + "a" * 300, "/a/" + "a" * 300)


def paths(usual: Path) -> st.SearchStrategy[Any]:
    return st.just(str(usual)) | st.sampled_from((*NOWHERE, *(f"{usual}{path}" for path in BELOW)))


def configurations(twins: Twins) -> st.SearchStrategy[bytes]:
    versions = st.sampled_from(("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "9.9", "")) | values
    known = st.one_of(
        st.tuples(st.just("cniVersion"), versions),
        st.tuples(st.just("name"), texts | values),
        st.tuples(st.just("socket"), paths(twins.socket)),
        st.tuples(st.just("notes"), paths(twins.notes)),
        st.tuples(st.just("fix"), texts | values),
    )
    usual = [("cniVersion", "1.0.0"), ("name", "dbnet"), ("socket", str(twins.socket)), ("notes", str(twins.notes))]
    good = objects(st.lists(st.tuples(texts, values), max_size=3).map(lambda members: usual + members))
    odd = objects(st.lists(known, min_size=1, max_size=4).map(lambda members: usual + members))
    return st.one_of(good, good, odd, odd, changed(good), anything)


def given_a_case(twins: Twins, data: st.DataObject, *verbs: str) -> Seen:
    """What all did with input of any kind."""
    stdin, environment = data.draw(configurations(twins)), data.draw(environments(*verbs))
    assume(stays_below(twins.directory, stdin))
    return twins.see(stdin, environment)


def stays_below(directory: Path, stdin: bytes) -> bool:
    """What names no places, or others by chance, would have the host's own changed."""
    try:
        config = json.loads(stdin)
    except (ValueError, RecursionError):
        return True
    if not isinstance(config, dict):
        return True
    places = [config.get(key, "/") for key in ("socket", "notes")]
    return all(place in NOWHERE or os.path.normpath(str(place)).startswith(f"{directory}/") for place in places)


lot = settings(max_examples=35, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@given(data=st.data())
@lot
def test_without_an_agent_they_do_the_same(twins: Twins, data: st.DataObject) -> None:
    seen = given_a_case(twins, data, "DEL", *VERBS)
    event(f"failed: {seen.failed}, noted: {bool(seen.notes)}")


@given(data=st.data())
@lot
def test_with_an_agent_they_do_the_same(asked: Twins, data: st.DataObject) -> None:
    seen = given_a_case(asked, data, *VERBS, "VERSION")
    event(f"failed: {seen.failed}, asked: {seen.first is not None}")


replies = st.one_of(
    st.builds(lambda output, failed: reply(output, failed=failed), st.dictionaries(texts, values), st.booleans()),
    st.builds(lambda result: json.dumps({"result": result}).encode() + b"\n", values),
    st.builds(lambda failed: json.dumps({"result": {"failed": failed}}).encode(), values),
    st.builds(lambda error: json.dumps({"error": error}).encode() + b"\n",
              st.fixed_dictionaries({}, optional={"what": texts | values, "fix": texts | values})),
    st.text(st.characters(), max_size=8).map(refusal),
    anything.map(lambda text: b'{"result":{"output":' + text + b"}}\n"),
    anything,
)  # fmt: skip


@given(answer=replies, verb=st.sampled_from(VERBS))
@example(answer=b'{"result":{"output":{"a":NaN}}}\n', verb="CHECK")
@example(answer=b'{"result":{"output":{"a":1e999}}}\n', verb="CHECK")
@example(answer=b'{"result":{"output":null},"result":{"output":{"a":1}}}\n', verb="ADD")
@example(answer=b'{"result":{"failed":0.0}}\n{}\n', verb="GC")
@example(answer=b'{"result":{"failed":1e-400}}\n', verb="GC")
@example(answer=b'{"result":{"output":{"a":"' + b"a" * (4 << 20) + b'"}}}\n', verb="STATUS")
@example(answer=b'{"error":{"what":"\\ud83d","fix":"\\ude00"}}\n', verb="STATUS")
@example(answer=b'{"error":{"what":"w","fix":""}}\n', verb="STATUS")
@lot
def test_they_understand_an_agent_alike(asked: Twins, answer: bytes, verb: str) -> None:
    assert asked.agent is not None
    asked.agent.answer = answer
    config = {"name": "dbnet", "socket": str(asked.socket), "notes": str(asked.notes)}
    asked.see(json.dumps(config).encode(), {"CNI_COMMAND": verb, **POD})


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("answer", [None, b"", b"{"], ids=repr)
def test_they_wait_alike(asked: Twins, verb: str, answer: bytes | None) -> None:
    assert asked.agent is not None
    asked.agent.answer = answer
    config = {"name": "dbnet", "socket": str(asked.socket), "notes": str(asked.notes)}
    seen = asked.see(json.dumps(config).encode(), {"CNI_COMMAND": verb, **POD})
    assert answer is not None or seen.failed == (verb != "DEL")


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=70)


@given(network=texts.filter(bool), container=names, interface=names)
@example(network="n", container="c" * 9, interface="i")  # 55, 56, 63 and 64 bytes: where SHA-256 takes another block
@example(network="n", container="c" * 10, interface="i")
@example(network="n", container="c" * 17, interface="i")
@example(network="n", container="c" * 18, interface="i")
@lot
def test_their_notes_are_the_very_same(twins: Twins, network: str, container: str, interface: str) -> None:
    config = {"name": network, "socket": str(twins.socket), "notes": str(twins.notes)}
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": container, "CNI_IFNAME": interface}
    seen = twins.see(json.dumps(config).encode(), variables)
    assert seen.failed == (not container or not interface)
    notes = [(name, note) for name, (_, note) in seen.notes.items() if note]
    assert len(notes) == (not seen.failed)
    for name, note in notes:
        assert name == f"{hashlib.sha256(note).hexdigest()[:32]}.json"


@pytest.mark.parametrize("path", BELOW, ids=lambda path: ascii(path[:15]))
def test_they_make_the_same_directories(twins: Twins, path: str) -> None:
    config = {"name": "n", "socket": "", "notes": f"{twins.notes}{path}"}
    seen = twins.see(json.dumps(config).encode(), {"CNI_COMMAND": "DEL", **POD})
    assert seen.failed == ("\0" in path or "a" * 300 in path)


@pytest.mark.parametrize("path", ["notes", "notes/a", "notes/a/b", "link", "link/a", "nowhere/a/b"])
def test_what_is_in_the_way_is_the_same(twins: Twins, path: str) -> None:
    (twins.directory / "link").symlink_to(twins.directory / "nowhere")
    config = {"name": "n", "socket": "", "notes": str(twins.directory / path)}
    twins.notes.write_text("a file")
    seen = twins.see(json.dumps(config).encode(), {"CNI_COMMAND": "DEL", **POD})
    assert seen.failed == (path != "nowhere/a/b")


def test_an_agent_hears_the_very_same_bytes(asked: Twins) -> None:
    assert asked.agent is not None
    config = {"name": "d\u00e9 \u007f\U0001f600\n", "socket": str(asked.socket), "a": [1, {"b": [None, True, '\\"/']}]}
    heard = []
    for runtime in asked.runtimes.values():
        runtime.execute([runtime.program], {"CNI_COMMAND": "ADD", **POD}, json.dumps(config, indent=2).encode())
        heard.append(asked.agent.lines.pop())
    assert len(set(heard)) == 1


WRONG = (b'{"notes":"/\\u0000","name":"a","socket":""}', b'{"socket":5}', b'{"socket":""}', b"[]")


@pytest.mark.parametrize("stdin", WRONG, ids=repr)
def test_errors_are_the_very_same_bytes(twins: Twins, stdin: bytes) -> None:
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "a", "CNI_IFNAME": "b"}
    runs = (runtime.execute([runtime.program], variables, stdin) for runtime in twins.runtimes.values())
    assert len({said.stdout for said in runs}) == 1
