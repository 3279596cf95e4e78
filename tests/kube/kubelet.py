"""A kubelet, just large enough for our manifest: its Node object, the pods bound to it, their status and logs.

    API server ──(watch)──> pods of this node ── a worker each ──(CRI)──> containerd      :10250 ──> logs of containers
    containerd's Status ──> the Node's condition Ready

Law: to the API server it speaks over HTTP in its machine's network; what it once got from there it remembers, as a real
one's caches do, so that an outage stops nothing. Tokens alone come by the tests' own way, for nobody here signs them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc  # type: ignore[import-untyped]
from cri_api.v1 import api_pb2 as cri

from tests.kube.caller import Refused, Unreachable
from tests.kube.logs import PORT, Logs
from tests.kube.machine import Machine
from tests.kube.podworker import PodWorker, now
from tests.kube.scene import Scene

Json = dict[str, Any]
TICK_SECONDS: Final = 0.1
AGAIN_SECONDS: Final = 0.5
VERSION: Final = "v1.36.0"


class Kubelet:
    """`services`: the variables that every pod has, of the Service `kubernetes`."""

    def __init__(self, scene: Scene, machine: Machine, services: Mapping[str, str]) -> None:
        self.machine = machine
        self.services = services
        self.caller = scene.caller(machine.host.namespace)
        self._scene = scene
        self._pods: dict[str, Json] = {}
        """By UID, as the API server last told them."""
        self._workers: dict[str, PodWorker] = {}
        self._remembered: dict[tuple[str, str, str], dict[str, str] | None] = {}
        self._told: Json = {}
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._logs: Logs | None = None

    # --- life --------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self._ended.clear()
        self._logs = Logs(self)
        self._threads = [
            threading.Thread(target=work, daemon=True, name=f"{work.__name__} of {self.machine}")
            for work in (self._follow, self._keep)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Its pods go on."""
        self._ended.set()
        for worker in self._workers.values():
            worker.leave()
        self._workers.clear()
        if self._logs is not None:
            self._logs.close()
        for thread in self._threads[1:]:
            thread.join()

    def reboot(self, between: Callable[[], None]) -> None:
        """The machine loses its power, and comes back with its disk alone; `between` is done in its new network."""
        self.stop()
        self.machine.reboot(between)
        self.start()

    def _keep(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            with contextlib.suppress(Refused, Unreachable):
                self._register()
            for uid, pod in list(self._pods.items()):
                worker = self._workers.get(uid)
                if worker is None:
                    self._workers[uid] = worker = PodWorker(self, pod)
                    worker.start()
                worker.pod = pod
            for uid, worker in list(self._workers.items()):
                if worker.ended.is_set():
                    del self._workers[uid]

    def _follow(self) -> None:
        query = f"fieldSelector=spec.nodeName%3D{self.machine.name}"
        while not self._ended.is_set():
            try:
                listed = self.caller.list("v1", "Pod", query=query)
                self._pods = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
                version = listed["metadata"]["resourceVersion"]
                for event in self.caller.follow("v1", "Pod", query, version):
                    if self._ended.is_set():
                        return
                    self._hear(event)
            except (Refused, Unreachable):
                pass
            self._ended.wait(AGAIN_SECONDS)

    def _hear(self, event: Json) -> None:
        pod = event["object"]
        if event["type"] in ("ADDED", "MODIFIED"):
            self._pods[pod["metadata"]["uid"]] = pod
        elif event["type"] == "DELETED" and (known := self._pods.pop(pod["metadata"]["uid"], None)):
            # By force: whoever deleted it did not wait for us.
            worker = self._workers.get(pod["metadata"]["uid"])
            if worker is not None:
                worker.pod = {**known, "metadata": {**known["metadata"], "deletionTimestamp": now()}}

    # --- the node ----------------------------------------------------------------------------------------------------
    def network_unready(self) -> str:
        """As a kubelet says it; empty if pods may come."""
        try:
            status = self.machine.runtime.Status(cri.StatusRequest()).status
        except grpc.RpcError as error:
            return str(error.details())
        for each in status.conditions:
            if each.type == "NetworkReady" and not each.status:
                return f"{each.type}=false reason:{each.reason} message:{each.message}"
        return ""

    def _register(self) -> None:
        """Once, and again whenever Ready changes."""
        why = self.network_unready()
        ready = {
            "type": "Ready", "status": "False" if why else "True",
            "reason": "KubeletNotReady" if why else "KubeletReady",
            "message": f"container runtime network not ready: {why}" if why else "kubelet is posting ready status",
        }  # fmt: skip
        if ready == self._told:
            return
        if self.caller.get("v1", "Node", self.machine.name) is None:
            labels = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": self.machine.name}
            metadata = {"name": self.machine.name, "labels": labels}
            self.caller.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        stamped = ready | {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
        self.caller.patch_status("v1", "Node", self.machine.name, "", self._status(stamped))
        self._told = ready

    def _status(self, ready: Json) -> Json:
        address, room = self.machine.host.address, {"cpu": "2", "memory": "4Gi", "pods": "110"}
        return {
            "addresses": [{"type": "InternalIP", "address": address},
                          {"type": "Hostname", "address": self.machine.name}],
            "capacity": room,
            "allocatable": room,
            "conditions": [ready],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://1.6.20",
                "kernelVersion": os.uname().release, "kubeProxyVersion": "", "kubeletVersion": VERSION, "machineID": "",
                "operatingSystem": "linux", "osImage": "none", "systemUUID": "",
            },
        }  # fmt: skip

    # --- what pods are given -----------------------------------------------------------------------------------------
    @property
    def authority(self) -> str:
        return self._scene.authority.read_text()

    def token(self, namespace: str, name: str) -> str:
        return str(self._scene.control.do("token", user=f"system:serviceaccount:{namespace}:{name}"))

    def data(self, kind: str, namespace: str, name: str) -> dict[str, str] | None:
        """What was known last, if the API server does not answer. Raises Unreachable."""
        key = kind, namespace, name
        try:
            thing = self.caller.get("v1", kind, name, namespace)
        except Unreachable:
            if key not in self._remembered:
                raise
        else:
            self._remembered[key] = None if thing is None else thing.get("data") or {}
        return self._remembered[key]

    # --- what pods' workers say --------------------------------------------------------------------------------------
    def tell(self, pod: Json, status: Json) -> bool:
        metadata = pod["metadata"]
        try:
            self.caller.patch_status("v1", "Pod", metadata["name"], metadata["namespace"], status)
        except (Refused, Unreachable) as error:
            return isinstance(error, Refused) and error.code == 404
        return True

    def forget(self, pod: Json) -> None:
        """It has ended: now its object goes. Raises Unreachable."""
        metadata = pod["metadata"]
        self.caller.delete("v1", "Pod", metadata["name"], metadata["namespace"], uid=metadata["uid"], grace=0)
        self._pods.pop(metadata["uid"], None)

    def say(self, pod: Json, reason: str, message: str, *, warning: bool) -> None:
        metadata, at = pod["metadata"], now()
        event = {
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{time.time_ns():x}", "namespace": metadata["namespace"]},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"],
                               "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "reason": reason, "message": message[:1024], "type": "Warning" if warning else "Normal",
            "source": {"component": "kubelet", "host": self.machine.name},
            "firstTimestamp": at, "lastTimestamp": at, "count": 1,
        }  # fmt: skip
        with contextlib.suppress(Refused, Unreachable):
            self.caller.create(event)

    # --- for tests ---------------------------------------------------------------------------------------------------
    @property
    def workers(self) -> list[PodWorker]:
        return list(self._workers.values())

    def worker(self, name: str) -> PodWorker:
        return next(each for each in self.workers if each.pod["metadata"]["name"] == name)

    def execute(self, pod: str, container: str, *argv: str, seconds: int = 30) -> tuple[int, str]:
        """What a command in a container prints, and its exit code: what `kubectl exec` leads to."""
        identity = self.worker(pod).containers[container].identity
        answer = self.machine.runtime.ExecSync(cri.ExecSyncRequest(container_id=identity, cmd=argv, timeout=seconds))
        said: bytes = answer.stdout + answer.stderr
        return int(answer.exit_code), said.decode(errors="replace")
