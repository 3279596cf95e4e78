"""The patches that clients send: JSON patch (RFC 6902), JSON merge patch (RFC 7396), and the strategic one.

The strategic one, Kubernetes' own, knows of some lists by which key their elements are merged; others it replaces. Its
directives `$patch: delete|replace`, `$deleteFromPrimitiveList`, `$setElementOrder` and `$retainKeys` are what
`kubectl apply` sends.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from tests.kube.apiserver.refusals import bad_request

KEYS: Final = {
    "conditions": "type",
    "addresses": "type",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ownerReferences": "uid",
    "taints": "key",
    "imagePullSecrets": "name",
    "secrets": "name",
    "hostAliases": "ip",
    "podIPs": "ip",
}
PORTS: Final = ("containerPort", "port")
PRIMITIVE: Final = frozenset({"finalizers", "podCIDRs"})


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def strategic(target: Any, patch: Any) -> Any:
    """Of an object."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    if retained := patch.get("$retainKeys"):
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key == "$retainKeys" or key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [each for each in result.get(name, []) if each not in value]
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _list(key, result.get(key) or [], value)
        else:
            result[key] = strategic(result.get(key), value)
    return _ordered(result, patch)


def _key(name: str, elements: list[Any]) -> str:
    if name == "ports":
        return next((key for key in PORTS if all(isinstance(each, dict) and key in each for each in elements)), "")
    return KEYS.get(name, "")


def _list(name: str, old: list[Any], new: list[Any]) -> list[Any]:
    if name in PRIMITIVE:
        return [*old, *(each for each in new if each not in old)]
    if any(isinstance(each, dict) and each.get("$patch") == "replace" for each in new):
        return [copy.deepcopy(each) for each in new if each != {"$patch": "replace"}]
    key = _key(name, [each for each in new if isinstance(each, dict)])
    if not key:
        return copy.deepcopy(new)
    result = list(old)
    for element in new:
        if not isinstance(element, dict) or key not in element:
            raise bad_request(f"map: {element} does not contain declared merge key: {key}")
        places = [i for i, each in enumerate(result) if each.get(key) == element[key]]
        if element.get("$patch") == "delete":
            result = [each for i, each in enumerate(result) if i not in places]
        elif places:
            result[places[0]] = strategic(result[places[0]], element)
        else:
            result.append(strategic({}, element))
    return result


def _ordered(result: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for directive, order in patch.items():
        if not directive.startswith("$setElementOrder/"):
            continue
        name = directive.partition("/")[2]
        elements = result.get(name)
        if not isinstance(elements, list) or not order:
            continue
        key = _key(name, [each for each in order if isinstance(each, dict)])
        wanted = [each.get(key) if key and isinstance(each, dict) else each for each in order]

        def rank(each: Any, key: str = key, wanted: list[Any] = wanted) -> int:
            told = each.get(key) if key and isinstance(each, dict) else each
            return wanted.index(told) if told in wanted else len(wanted)

        result[name] = sorted(elements, key=rank)
    return result


def json_patched(target: Any, operations: Any) -> Any:
    """RFC 6902: add, remove, replace, test."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list")
    result = copy.deepcopy(target)
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        try:
            parent = result
            for part in way:
                parent = parent[int(part)] if isinstance(parent, list) else parent[part]
            _apply(parent, last, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise bad_request(f"the JSON patch does not apply: {operation}: {error!r}") from None
    return result


def _apply(parent: Any, last: str, operation: dict[str, Any]) -> None:
    what, value = operation["op"], operation.get("value")
    place: Any = last
    if isinstance(parent, list):
        place = len(parent) if last == "-" else int(last)
    if what == "add" and isinstance(parent, list):
        parent.insert(place, value)
    elif what == "add":
        parent[place] = value
    elif what == "remove":
        del parent[place]
    elif what == "replace":
        if place not in parent if isinstance(parent, dict) else place >= len(parent):
            raise KeyError(last)
        parent[place] = value
    elif what == "test" and parent[place] != value:
        raise ValueError("the test failed")
