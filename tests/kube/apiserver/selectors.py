"""Which objects a label selector and a field selector mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from tests.kube.apiserver.refusals import bad_request

Matches = Callable[[dict[str, Any]], bool]

_SETS: Final = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_COMMA: Final = re.compile(r",(?![^(]*\))")
FIELDS: Final = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "spec.unschedulable",
        "status.phase",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.kind",
        "involvedObject.uid",
        "reason",
        "type",
    }
)


def selector(labels: str, fields: str) -> Matches:
    """Raises Refusal for what a real server would not understand."""
    tests = [_label(part.strip()) for part in _COMMA.split(labels) if part.strip()]
    tests += [_field(part.strip()) for part in fields.split(",") if part.strip()]
    return lambda thing: all(test(thing) for test in tests)


def _label(text: str) -> Matches:
    if found := _SETS.match(text):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda thing: _labels(thing).get(key) in values
        return lambda thing: _labels(thing).get(key) not in values
    if "!=" in text:
        key, _, value = text.partition("!=")
        return lambda thing: _labels(thing).get(key.strip()) != value.strip()
    if "=" in text:
        key, _, value = text.partition("=")
        return lambda thing: _labels(thing).get(key.strip()) == value.lstrip("=").strip()
    if text.startswith("!"):
        return lambda thing: text[1:].strip() not in _labels(thing)
    return lambda thing: text in _labels(thing)


def _labels(thing: dict[str, Any]) -> dict[str, str]:
    return thing["metadata"].get("labels") or {}


def _field(text: str) -> Matches:
    key, operator, value = text.partition("!=") if "!=" in text else text.partition("=")
    key, value = key.strip(), value.lstrip("=").strip()
    if key not in FIELDS or not operator:
        raise bad_request(f'field label not supported: "{key}"')
    if operator == "!=":
        return lambda thing: _at(thing, key) != value
    return lambda thing: _at(thing, key) == value


def _at(thing: Any, path: str) -> str:
    for part in path.split("."):
        thing = thing.get(part) or "" if isinstance(thing, dict) else ""
    return str(thing)
