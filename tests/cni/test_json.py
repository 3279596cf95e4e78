"""The compiled plugin's JSON is Python's: what is none, what a text means, and what is written of it."""

from __future__ import annotations

import ctypes
import json
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.cni import programs
from tests.cni.json_texts import anything, doubled, exact, texts, values

WITHOUT_HALVES: Final = 0
WITH_HALVES: Final = 1
FOR_AGENT: Final = 0
FOR_RUNTIME: Final = 1


class Text(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("room", ctypes.c_size_t))

    @property
    def bytes(self) -> bytes:
        return ctypes.string_at(self.at, self.size)


class Value(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Fault(ctypes.Structure):
    _fields_ = (("what", ctypes.c_char_p), ("at", ctypes.c_size_t))


class Json:
    """The plugin's C files, called one by one."""

    def __init__(self, library: Path) -> None:
        self._c = ctypes.CDLL(str(library))
        self._c.json_check.restype = Fault
        self._c.json_member.restype = Value
        self._c.json_text.restype = Text
        self._c.json_true.restype = ctypes.c_bool
        self._c.json_member.argtypes = (Value, ctypes.c_char_p)

    def check(self, text: bytes, halves: int) -> Checked | None:
        """None for what is no JSON."""
        kept = ctypes.create_string_buffer(text, len(text) + 1)
        value = Value()
        given_text = Text(ctypes.addressof(kept), len(text), len(text) + 1)
        fault = self._c.json_check(ctypes.byref(given_text), halves, ctypes.byref(value))
        return None if fault.what else Checked(self._c, kept, value)


class Checked:
    def __init__(self, c: ctypes.CDLL, kept: Any, value: Value) -> None:
        self._c = c
        self._kept = kept
        self._value = value

    def member(self, key: str) -> Checked | None:
        found = self._c.json_member(self._value, key.encode())
        return Checked(self._c, self._kept, found) if found.at else None

    def written(self, style: int) -> bytes:
        text = Text()
        self._c.json_write(ctypes.byref(text), self._value, style)
        return self._taken(text)

    def text(self) -> str:
        return self._taken(self._c.json_text(self._value)).decode("utf-8", "surrogatepass")

    def true(self) -> bool:
        return bool(self._c.json_true(self._value))

    def _taken(self, text: Text) -> bytes:
        found = text.bytes
        self._c.text_free(ctypes.byref(text))
        return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Json:
    library = tmp_path_factory.mktemp("json") / "json.so"
    sources = (programs.C / name for name in ("text.c", "token.c", "check.c", "json.c"))
    programs.compile_c(library, sources, ("-shared", "-fPIC"))
    return Json(library)


@pytest.fixture(scope="module")
def python() -> ModuleType:
    """The plugin as a module."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader = SourceFileLoader("tunrouter_cni_plugin", str(programs.SCRIPT))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def understood(python: ModuleType, text: bytes, write: str) -> Any:
    """What Python reads, `...` for what is no JSON."""
    try:
        return python.read(text, getattr(python, write))
    except (ValueError, RecursionError):
        return ...


@pytest.mark.parametrize(("halves", "write"), [(WITHOUT_HALVES, "encode"), (WITH_HALVES, "show")])
@given(text=anything)
@settings(max_examples=400)
@example(text=b'{"a":"\\ud800","a":1}')
@example(text=b'{"a":NaN,"a":1}')
@example(text=b'{"a":[1e400],"a":1}')
@example(text=b'{"\\u0061":1,"a":2}')
@example(text=b"[" * 500 + b"]" * 500)
@example(text=b"\xff\xfe{\0}\0")
@example(text=b"\xef\xbb\xbf{}")
@example(text=b'"\\ud83d\\ude00\\ude00"')
def test_what_python_reads_is_read_and_means_the_same(
    compiled: Json, python: ModuleType, text: bytes, halves: int, write: str
) -> None:
    expected, checked = understood(python, text, write), compiled.check(text, halves)
    assert (checked is None) == (expected is ...)
    if checked is not None:
        for style in (FOR_RUNTIME, FOR_AGENT)[: 2 - halves]:
            assert json.dumps(json.loads(checked.written(style))) == json.dumps(expected)
        assert checked.written(FOR_RUNTIME).isascii()
        assert checked.true() == bool(expected)


@given(value=exact)
@settings(max_examples=150)
def test_what_is_written_is_what_python_writes(compiled: Json, python: ModuleType, value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        checked = compiled.check(text.encode(), WITHOUT_HALVES)
        assert checked is not None
        assert checked.written(FOR_AGENT) == python.encode(value)
        assert checked.written(FOR_RUNTIME) == python.show(value).encode()


@given(value=values)
def test_numbers_stay_the_same(compiled: Json, value: Any) -> None:
    checked = compiled.check(json.dumps(value).encode(), WITHOUT_HALVES)
    assert checked is not None
    assert checked.written(FOR_RUNTIME) == json.dumps(value).encode()


@given(text=doubled, key=texts.filter(lambda key: "\0" not in key))
def test_the_last_member_of_a_name_is_the_one(compiled: Json, text: bytes, key: str) -> None:
    object_, checked = json.loads(text), compiled.check(text, WITHOUT_HALVES)
    assert checked is not None
    for name in {key, *(name for name in object_ if "\0" not in name)}:
        member = checked.member(name)
        assert (member is not None) == (name in object_)
        if member is not None:
            assert json.loads(member.written(FOR_AGENT)) == object_[name]
            assert not isinstance(object_[name], str) or member.text() == object_[name]


@given(text=st.text(max_size=20))
def test_a_text_has_pythons_characters(compiled: Json, text: str) -> None:
    checked = compiled.check(json.dumps(text).encode(), WITH_HALVES)
    assert checked is not None
    # Two halves that stand together as escapes are a character, for both.
    assert checked.text() == json.loads(json.dumps(text))


@pytest.mark.parametrize(("depth", "read"), [(512, True), (513, False), (100_000, False)])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_the_depth_has_a_bound(compiled: Json, opening: bytes, closing: bytes, depth: int, read: bool) -> None:
    text = opening * depth + (b"1" if closing == b"}" else b"") + closing * depth
    assert (compiled.check(text, WITHOUT_HALVES) is not None) == read
