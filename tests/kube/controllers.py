"""The DaemonSet controller, the scheduler's binding and what admission adds to pods, as far as our manifest needs.

    DaemonSet × Nodes ──> a pod each, bound      template changed ──> old pods go, so many at a time ──> new ones
    pods that become ready ──> the DaemonSet's status

Law (of the controller manager): a pod that is going still occupies its node; one that is not available counts as much
as one that is missing. What a server's admission adds, the token's volume, is added here.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
import time
from datetime import datetime
from typing import Any, Final

from tests.kube.caller import Caller, Refused, Unreachable

Json = dict[str, Any]
LOOK_SECONDS: Final = 0.2
HASH: Final = "controller-revision-hash"
TOKENS: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
ACCESS: Final = "kube-api-access"
WITH_TOKEN: Final[Json] = {
    "name": ACCESS,
    "projected": {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace",
                                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ],
    },
}  # fmt: skip


def admitted(pod: Json) -> Json:
    """With the volume of its service account's token, as a server's admission adds it."""
    made = copy.deepcopy(pod)
    spec = made["spec"]
    spec.setdefault("serviceAccountName", "default")
    if spec.get("automountServiceAccountToken") is not False:
        spec.setdefault("volumes", []).append(copy.deepcopy(WITH_TOKEN))
        for container in spec["containers"]:
            mount = {"name": ACCESS, "mountPath": TOKENS, "readOnly": True}
            container.setdefault("volumeMounts", []).append(mount)
    return made


def is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class Daemons(threading.Thread):
    """Looks until it is told to end."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(daemon=True, name="DaemonSet controller")
        self._caller = caller
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                for daemons in self._caller.list("apps/v1", "DaemonSet")["items"]:
                    self._look(daemons)
            except (Refused, Unreachable):
                continue

    def _look(self, daemons: Json) -> None:
        namespace, uid = daemons["metadata"]["namespace"], daemons["metadata"]["uid"]
        nodes = [node["metadata"]["name"] for node in self._caller.list("v1", "Node")["items"]]
        pods = [
            pod
            for pod in self._caller.list("v1", "Pod", namespace)["items"]
            if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())
        ]
        revision = hashlib.sha256(json.dumps(daemons["spec"]["template"], sort_keys=True).encode()).hexdigest()[:10]
        served = {pod["spec"]["nodeName"] for pod in pods}
        for node in nodes:
            if node not in served:
                self._caller.create(_pod(daemons, node, revision))
        available = [pod for pod in pods if _available(pod, daemons["spec"].get("minReadySeconds", 0))]
        self._roll(daemons, pods, available, len(nodes), revision)
        self._tell(daemons, nodes, pods, available, revision, namespace)

    def _roll(self, daemons: Json, pods: list[Json], available: list[Json], wanted: int, revision: str) -> None:
        """Old pods that are not available go first, and then so many that no more than allowed are missing."""
        allowed = _count(daemons["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], wanted)
        missing = wanted - len(available)
        for pod in sorted(pods, key=lambda pod: pod in available):
            metadata = pod["metadata"]
            if metadata["labels"][HASH] == revision or metadata.get("deletionTimestamp"):
                continue
            if pod in available:
                if missing >= allowed:
                    return
                missing += 1
            self._caller.delete("v1", "Pod", metadata["name"], metadata["namespace"], uid=metadata["uid"])

    def _tell(self, daemons: Json, nodes: list[str], pods: list[Json], available: list[Json], revision: str,
              namespace: str) -> None:  # fmt: skip
        status = {
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len({pod["spec"]["nodeName"] for pod in pods}),
            "numberMisscheduled": 0,
            "numberReady": sum(map(is_ready, pods)),
            "updatedNumberScheduled": sum(pod["metadata"]["labels"][HASH] == revision for pod in pods),
            "numberAvailable": len(available),
            "observedGeneration": daemons["metadata"]["generation"],
        }
        if status != daemons.get("status"):
            self._caller.patch_status("apps/v1", "DaemonSet", daemons["metadata"]["name"], namespace, status)


def _pod(daemons: Json, node: str, revision: str) -> Json:
    metadata, template = daemons["metadata"], daemons["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": metadata["name"], "uid": metadata["uid"],
             "controller": True, "blockOwnerDeletion": True}  # fmt: skip
    return admitted({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": f"{metadata['name']}-", "namespace": metadata["namespace"],
            "labels": template["metadata"]["labels"] | {HASH: revision},
            "annotations": template["metadata"].get("annotations") or {},
            "ownerReferences": [owner],
        },
        "spec": copy.deepcopy(template["spec"]) | {"nodeName": node, "restartPolicy": "Always"},
    })  # fmt: skip


def _available(pod: Json, seconds: int) -> bool:
    if not is_ready(pod) or pod["metadata"].get("deletionTimestamp"):
        return False
    since = next(each["lastTransitionTime"] for each in pod["status"]["conditions"] if each["type"] == "Ready")
    return time.time() - datetime.fromisoformat(since).timestamp() >= seconds


def _count(allowed: int | str, of: int) -> int:
    return math.ceil(int(allowed.rstrip("%")) * of / 100) if isinstance(allowed, str) else allowed
