"""Lists as the tables that `kubectl get` asks for, with the columns that the kinds have in a real cluster."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from tests.kube.apiserver.kinds import Json, Kind
from tests.kube.apiserver.request import Request

Columns = tuple[tuple[str, Callable[[Json], Any]], ...]


def wanted(request: Request) -> bool:
    return "as=Table" in request.headers.get("accept", "").partition(",")[0]


def table(kind: Kind, listed: Json) -> Json:
    """Of a list, or of one object."""
    things = listed.get("items", [listed])
    columns: Columns = (("Name", _name), *COLUMNS.get(kind.plural, ()), ("Age", _age))
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {key: value for key, value in listed["metadata"].items() if key in ("resourceVersion", "continue")},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 0,
            }
            for name, _ in columns
        ],
        "rows": [{"cells": [cell(thing) for _, cell in columns], "object": _partial(thing)} for thing in things],
    }


def _partial(thing: Json) -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": thing["metadata"]}


def _name(thing: Json) -> Any:
    return thing["metadata"]["name"]


def _age(thing: Json) -> str:
    born = datetime.fromisoformat(thing["metadata"]["creationTimestamp"])
    seconds = int((datetime.now(UTC) - born).total_seconds())
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m" if seconds < 7200 else f"{seconds // 3600}h"


def _containers(pod: Json) -> list[Json]:
    return list(pod.get("status", {}).get("containerStatuses") or ())


def _ready(pod: Json) -> str:
    return f"{sum(bool(each.get('ready')) for each in _containers(pod))}/{len(pod['spec']['containers'])}"


def _restarts(pod: Json) -> str:
    return str(sum(each.get("restartCount", 0) for each in _containers(pod)))


def _pod_status(pod: Json) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    waiting = (each.get("state", {}).get("waiting", {}).get("reason") for each in _containers(pod))
    return next((reason for reason in waiting if reason), str(pod.get("status", {}).get("phase", "")))


def _node_status(node: Json) -> str:
    conditions = node.get("status", {}).get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    cordoned = ",SchedulingDisabled" if node.get("spec", {}).get("unschedulable") else ""
    return ("Ready" if ready else "NotReady") + cordoned


def _count(field: str) -> Callable[[Json], str]:
    return lambda thing: str((thing.get("status") or {}).get(field, 0))


COLUMNS: Final[dict[str, Columns]] = {
    "pods": (("Ready", _ready), ("Status", _pod_status), ("Restarts", _restarts)),
    "nodes": (
        ("Status", _node_status),
        ("Roles", lambda node: "<none>"),
        ("Version", lambda node: node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")),
    ),
    "daemonsets": (
        ("Desired", _count("desiredNumberScheduled")),
        ("Current", _count("currentNumberScheduled")),
        ("Ready", _count("numberReady")),
        ("Up-to-date", _count("updatedNumberScheduled")),
        ("Available", _count("numberAvailable")),
    ),
    "leases": (("Holder", lambda lease: (lease.get("spec") or {}).get("holderIdentity", "")),),
}
