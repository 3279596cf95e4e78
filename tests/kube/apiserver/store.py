"""The objects, as etcd and the registries before it keep them: one growing version, optimistic concurrency, history.

Law: a stored object is never changed, only replaced by another: lists and events hold what was true at their version.
"""

from __future__ import annotations

import copy
import secrets
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from tests.kube.apiserver.kinds import BY_PATH, Json, Kind, stored_as
from tests.kube.apiserver.refusals import (
    already_exists,
    bad_request,
    conflict,
    expired,
    forbidden,
    invalid,
    not_found,
    too_large,
)
from tests.kube.apiserver.selectors import Matches

HISTORY: Final = 100_000
NAMESPACES: Final = BY_PATH["v1", "namespaces"]
WITH_GENERATION: Final = frozenset({"apps", "batch", "networking.k8s.io", "policy"})

Key = tuple[Kind, str, str]
"""Kind, namespace, name."""


class Change(NamedTuple):
    version: int
    type: str
    kind: Kind
    before: Json | None
    after: Json | None


class Store:
    """Every method is called in one loop. `changed` hears of every change after it is made."""

    def __init__(self, validate: Callable[[Kind, Json], None]) -> None:
        self.version = 1
        self.oldest = 0
        """Changes up to this version are forgotten."""
        self.objects: dict[Key, Json] = {}
        self.changed: list[Callable[[Change], None]] = []
        self._validate = validate
        self._history: deque[Change] = deque(maxlen=HISTORY)
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.create(NAMESPACES, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def get(self, kind: Kind, namespace: str, name: str) -> Json:
        try:
            return self.objects[stored_as(kind), namespace, name]
        except KeyError:
            raise not_found(kind, name) from None

    def select(self, kind: Kind, namespace: str, matches: Matches) -> list[Json]:
        """In the order of the store: by namespace and name."""
        wanted = stored_as(kind)
        found = [
            (key, thing)
            for key, thing in self.objects.items()
            if key[0] is wanted and (not namespace or key[1] == namespace) and matches(thing)
        ]
        return [thing for _, thing in sorted(found, key=lambda each: each[0][1:])]

    def create(self, kind: Kind, namespace: str, body: Json) -> Json:
        thing = self._received(kind, namespace, body)
        metadata = thing["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        name = metadata.get("name") or ""
        if not name:
            raise invalid(kind, "", "metadata.name", "Required value: name or generateName is required")
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        self._check_namespace(kind, namespace, name)
        self._validate(kind, thing)
        if (stored_as(kind), namespace, name) in self.objects:
            raise already_exists(kind, name)
        if kind.status and kind.plural != "nodes":
            thing.pop("status", None)
        if kind.plural == "pods":
            thing["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata.pop("deletionTimestamp", None)
        metadata.pop("generation", None)
        if kind.group in WITH_GENERATION:
            metadata["generation"] = 1
        if kind is NAMESPACES:
            thing["status"] = {"phase": "Active"}
            thing["spec"] = {"finalizers": ["kubernetes"]}
            metadata["labels"] = {"kubernetes.io/metadata.name": name, **(metadata.get("labels") or {})}
        return self._put(kind, namespace, name, None, thing)

    def replace(self, kind: Kind, namespace: str, name: str, body: Json, *, status: bool = False) -> Json:
        thing = self._received(kind, namespace, body)
        if thing["metadata"].get("name") != name:
            raise bad_request(
                f"the name of the object ({thing['metadata'].get('name')}) does not match the name on the URL ({name})"
            )
        known = self.objects.get((stored_as(kind), namespace, name))
        if known is None:
            if not kind.put_creates:
                raise not_found(kind, name)
            thing["metadata"].pop("resourceVersion", None)
            return self.create(kind, namespace, thing)
        seen = thing["metadata"].get("resourceVersion") or ""
        if not seen and not kind.blind:
            raise invalid(kind, name, "metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
        if seen and seen != known["metadata"]["resourceVersion"]:
            raise conflict(kind, name)
        return self._update(kind, namespace, name, known, thing, status)

    def patch(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Json], Json], *, status: bool = False
    ) -> Json:
        """`change` makes the new object of a copy of the old one; a version in the patch has to be the newest."""
        known = self.get(kind, namespace, name)
        thing = change(copy.deepcopy(known))
        seen = (thing.get("metadata") or {}).get("resourceVersion")
        if seen and seen != known["metadata"]["resourceVersion"]:
            raise conflict(kind, name)
        return self._update(kind, namespace, name, known, self._received(kind, namespace, thing), status)

    def delete(self, kind: Kind, namespace: str, name: str, preconditions: Json | None = None, *,
               grace: int | None = 0) -> Json:  # fmt: skip
        """`grace`: seconds that a pod has on its node, whose kubelet then deletes it for good; none: its own."""
        known = self.get(kind, namespace, name)
        metadata = known["metadata"]
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            wanted = (preconditions or {}).get(field)
            if wanted and wanted != metadata[field]:
                why = f"{label} in precondition: {wanted}, {label} in object meta: {metadata[field]}"
                raise conflict(kind, name, f"Precondition failed: {why}")
        if metadata.get("finalizers"):
            if metadata.get("deletionTimestamp"):
                return known
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return self._put(
                kind, namespace, name, known, {**known, "metadata": {**metadata, "deletionTimestamp": now}}
            )
        if kind.plural == "pods" and known["spec"].get("nodeName"):
            seconds = known["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
            if seconds:
                return self._doom(kind, known, seconds)
        if kind is NAMESPACES:
            for each, within, inside in [key for key in self.objects if key[1] == name]:
                self._remove(each, within, inside)
        return self._remove(kind, namespace, name)

    def _doom(self, kind: Kind, pod: Json, seconds: int) -> Json:
        """It is to end; a second time changes nothing."""
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            return pod
        until = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        doomed = {**metadata, "deletionTimestamp": until, "deletionGracePeriodSeconds": seconds}
        return self._put(kind, metadata["namespace"], metadata["name"], pod, {**pod, "metadata": doomed})

    def changes(self, since: int) -> list[Change]:
        """After this version. Raises Refusal when they are forgotten, or not made yet."""
        if since < self.oldest:
            raise expired(since, self.oldest)
        self.check(since)
        return [change for change in self._history if change.version > since]

    def check(self, version: int) -> None:
        if version > self.version:
            raise too_large(version, self.version)

    def compact(self) -> None:
        """Forgets what was before now."""
        self.version += 1
        self.oldest = self.version
        self._history.clear()

    def _received(self, kind: Kind, namespace: str, body: Any) -> Json:
        if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
            raise bad_request("the body is no object with metadata")
        thing = copy.deepcopy(body)
        for field, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
            stored = {"apiVersion": stored_as(kind).api_version, "kind": kind.kind}[field]
            if thing.setdefault(field, wanted) not in (wanted, stored):
                raise bad_request(f"{thing[field]} in version {wanted!r} cannot be handled as a {kind.kind}")
        if thing["metadata"].setdefault("namespace", namespace) != namespace:
            raise bad_request(
                f"the namespace of the provided object does not match the namespace sent on the request: {namespace!r}"
            )
        if not namespace:
            del thing["metadata"]["namespace"]
        return thing

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        home = self.get(NAMESPACES, "", namespace)
        if home["metadata"].get("deletionTimestamp"):
            raise forbidden("", "create", kind.plural, kind.group, f"{namespace}, which is being terminated; {name}")

    def _update(self, kind: Kind, namespace: str, name: str, known: Json, thing: Json, status: bool) -> Json:
        old, new = known["metadata"], thing["metadata"]
        if new.get("uid") not in (None, "", old["uid"]):
            why = f"UID in precondition: {new['uid']}, UID in object meta: {old['uid']}"
            raise conflict(kind, name, f"Precondition failed: {why}")
        if status:
            kept = {key: new[key] for key in ("labels", "annotations") if key in new}
            thing = {**known, "metadata": {**old, **kept}, "status": thing.get("status", {})}
        elif kind.status:
            thing.pop("status", None)
            if "status" in known:
                thing["status"] = known["status"]
        fixed = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion",
                 "deletionGracePeriodSeconds")  # fmt: skip
        thing["metadata"] = {**thing["metadata"], **{key: old[key] for key in fixed if key in old}}
        self._validate(kind, thing)
        if thing == known:
            return known
        if kind.group in WITH_GENERATION and thing.get("spec") != known.get("spec"):
            thing["metadata"]["generation"] = old.get("generation", 0) + 1
        doomed = old.get("deletionTimestamp") and not old.get("deletionGracePeriodSeconds")
        if doomed and not thing["metadata"].get("finalizers"):
            return self._remove(kind, namespace, name)
        return self._put(kind, namespace, name, known, thing)

    def _put(self, kind: Kind, namespace: str, name: str, known: Json | None, thing: Json) -> Json:
        self.version += 1
        stored = {**thing, "metadata": {**thing["metadata"], "resourceVersion": str(self.version)}}
        self.objects[stored_as(kind), namespace, name] = stored
        self._note("MODIFIED" if known else "ADDED", kind, known, stored)
        return stored

    def _remove(self, kind: Kind, namespace: str, name: str) -> Json:
        known = self.objects.pop((stored_as(kind), namespace, name))
        self.version += 1
        last = {**known, "metadata": {**known["metadata"], "resourceVersion": str(self.version)}}
        self._note("DELETED", kind, known, last)
        return last

    def _note(self, type_: str, kind: Kind, before: Json | None, after: Json) -> None:
        change = Change(self.version, type_, stored_as(kind), before, after)
        if len(self._history) == HISTORY:
            self.oldest = self._history[0].version
        self._history.append(change)
        for hear in list(self.changed):
            hear(change)
