"""The garbage collector of the controller manager: an object goes when none of its owners is there any more.

Law: an owner is there if an object of its kind, name and uid is; one of a namespace only for objects of that namespace.
Of a dependent with some owners left, only the references to the others are taken away.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from tests.kube.apiserver.kinds import BY_KIND, Json, stored_as
from tests.kube.apiserver.refusals import Refusal
from tests.kube.apiserver.store import Change, Key, Store


class Collector:
    def __init__(self, store: Store, seconds: float) -> None:
        self.seconds = seconds
        """From the owner's end to the dependents'."""
        self.running = True
        self._store = store
        self._dependents: dict[str, set[Key]] = defaultdict(set)
        store.changed.append(self._hear)

    def stop(self) -> None:
        """As if no controller manager were running."""
        self.running = False

    def start_again(self) -> None:
        """It was away, and looks through all that there is."""
        self.running = True
        for key, thing in list(self._store.objects.items()):
            self._note(key, thing)

    def _hear(self, change: Change) -> None:
        thing = change.after or {}
        metadata = thing["metadata"]
        key = (change.kind, metadata.get("namespace", ""), metadata["name"])
        if change.type == "DELETED":
            for dependent in self._dependents.pop(metadata["uid"], set()):
                self._look_later(dependent)
        else:
            self._note(key, thing)

    def _note(self, key: Key, thing: Json) -> None:
        owners = thing["metadata"].get("ownerReferences") or ()
        for owner in owners:
            self._dependents[owner["uid"]].add(key)
        if any(not self._lives(owner, key[1]) for owner in owners):
            self._look_later(key)

    def _look_later(self, key: Key) -> None:
        if self.running:
            asyncio.get_running_loop().call_later(self.seconds, self._look, key)

    def _look(self, key: Key) -> None:
        thing = self._store.objects.get(key)
        if thing is None or not self.running:
            return
        owners = thing["metadata"].get("ownerReferences") or []
        living = [owner for owner in owners if self._lives(owner, key[1])]
        if len(living) == len(owners):
            return
        kind, namespace, name = key
        if living:
            self._store.patch(kind, namespace, name, lambda old: _with_owners(old, living))
            return
        try:
            self._store.delete(kind, namespace, name, {"uid": thing["metadata"]["uid"]})
        except Refusal:
            self._look_later(key)

    def _lives(self, owner: Any, namespace: str) -> bool:
        kind = BY_KIND.get((owner["apiVersion"], owner["kind"]))
        if kind is None:
            return False
        found = self._store.objects.get((stored_as(kind), namespace if kind.namespaced else "", owner["name"]))
        return found is not None and found["metadata"]["uid"] == owner["uid"]


def _with_owners(thing: Json, owners: list[Any]) -> Json:
    return {**thing, "metadata": {**thing["metadata"], "ownerReferences": owners}}
