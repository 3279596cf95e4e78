"""One pod's life on a machine: sandbox, containers, restarts, status, end; a kubelet's pod worker.

    no sandbox ──(RunPodSandbox: CNI ADD)──> containers ──(probes)──> Ready    a container ends ──> started again, later
    deletionTimestamp ──> SIGTERM, grace, SIGKILL ──(StopPodSandbox: CNI DEL)──> the object goes

Law: what is wrong is said as a kubelet says it, as an Event at the pod, in the runtime's own words; and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc  # type: ignore[import-untyped]
from cri_api.v1 import api_pb2 as cri

from tests.kube import translation
from tests.kube.caller import Refused, Unreachable
from tests.kube.machine import Off
from tests.kube.probes import Probes
from tests.kube.volumes import Unmountable, Volumes

if TYPE_CHECKING:
    from tests.kube.kubelet import Kubelet

Json = dict[str, Any]
TICK_SECONDS: Final = 0.1
AGAIN_SECONDS: Final = 1.0
"""After something failed; a real kubelet waits longer."""
BACK_OFF_SECONDS: Final = 10.0
MOST_SECONDS: Final = 300.0
GRACE_SECONDS: Final = 30


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Container:
    """One of a pod's, over all its lives."""

    def __init__(self, spec: Json) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.identity = ""
        self.attempt = -1
        self.due = 0.0
        self.probes: Probes | None = None
        self.state: Json = {"waiting": {"reason": "ContainerCreating"}}
        self.last: Json = {}
        self.image = self.reference = ""

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def status(self) -> Json:
        return {
            "name": self.name, "image": self.spec["image"], "imageID": self.reference,
            "containerID": f"containerd://{self.identity}" if self.identity else "",
            "ready": self.running and self.probes is not None and self.probes.ready,
            "started": self.running and self.probes is not None and self.probes.started,
            "restartCount": max(self.attempt, 0), "state": self.state, "lastState": self.last,
        }  # fmt: skip

    def back_off(self) -> float:
        """Seconds until the next life: none before the first, and more and more."""
        return 0.0 if self.attempt < 1 else min(BACK_OFF_SECONDS * 2 ** (self.attempt - 1), MOST_SECONDS)


class PodWorker(threading.Thread):
    def __init__(self, kubelet: Kubelet, pod: Json) -> None:
        super().__init__(daemon=True, name=f"{pod['metadata']['name']} on {kubelet.machine}")
        translation.check(pod)
        self.kubelet = kubelet
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.sandbox = ""
        self.address = ""
        self.containers = {spec["name"]: Container(spec) for spec in pod["spec"]["containers"]}
        self._config: Any = None
        self._volumes = Volumes(kubelet.machine, kubelet, pod)
        self._places: dict[str, str] = {}
        self._began = now()
        self._told: Json = {}
        self._said: set[tuple[str, str]] = set()
        self._left = threading.Event()
        self.ended = threading.Event()

    @property
    def runtime(self) -> Any:
        if self.kubelet.machine.runtime is None:
            raise Off
        return self.kubelet.machine.runtime

    @property
    def on_host(self) -> bool:
        return bool(self.pod["spec"].get("hostNetwork"))

    def leave(self) -> None:
        """The kubelet ends; its pods stay."""
        self._left.set()
        self.join()
        for container in self.containers.values():
            if container.probes is not None:
                container.probes.end()

    # --- life --------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        while not self._left.is_set():
            if self.pod["metadata"].get("deletionTimestamp"):
                if self._attempt(self._terminate):
                    self.ended.set()
                    return
            elif self.sandbox or self._attempt(self._make_sandbox):
                for container in self.containers.values():
                    self._attempt(partial(self._sync, container))
            self._tell()
            self._left.wait(TICK_SECONDS)

    def _attempt(self, work: Callable[[], bool]) -> bool:
        """What fails is said, and tried again."""
        try:
            return work()
        except Off:
            self._left.set()
        except Unmountable as error:
            self.say(error.reason, str(error))
        except grpc.RpcError as error:
            self.say("Failed", f"Error: {error.details()}")
        except (Refused, Unreachable) as error:
            self.say("FailedMount", f"MountVolume.SetUp failed: {error}")
        self._left.wait(AGAIN_SECONDS)
        return False

    def _make_sandbox(self) -> bool:
        if not self.on_host and (why := self.kubelet.network_unready()):
            self.say("NetworkNotReady", f"network is not ready: container runtime network not ready: {why}")
            self._left.wait(AGAIN_SECONDS)
            return False
        self._places = dict(self._volumes.prepare())
        attempt = self._clear_away()
        self._config = translation.sandbox(self.pod, attempt, self.kubelet.machine.slice)
        try:
            made = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=self._config))
        except grpc.RpcError as error:
            self.say("FailedCreatePodSandBox", f"Failed to create pod sandbox: rpc error: code = "
                     f"{error.code().name.capitalize()} desc = {error.details()}")  # fmt: skip
            self._left.wait(AGAIN_SECONDS)
            return False
        self.sandbox = made.pod_sandbox_id
        self.kubelet.machine.favour()
        asked = cri.PodSandboxStatusRequest(pod_sandbox_id=self.sandbox)
        self.address = self.runtime.PodSandboxStatus(asked).status.network.ip
        if self.on_host:
            self.address = self.kubelet.machine.host.address
        return True

    def _clear_away(self) -> int:
        """What is left of former sandboxes of this pod, as after a reboot; which one is next."""
        selected = cri.PodSandboxFilter(label_selector={"io.kubernetes.pod.uid": self.uid})
        found = self.runtime.ListPodSandbox(cri.ListPodSandboxRequest(filter=selected)).items
        for each in found:
            self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=each.id))
            self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=each.id))
        return max((each.metadata.attempt + 1 for each in found), default=0)

    def _sync(self, container: Container) -> bool:
        if container.identity:
            self._look(container)
        if container.running:
            assert container.probes is not None
            if container.probes.unhealthy:
                self.say("Unhealthy", container.probes.unhealthy)
                self.say("Killing", f"Container {container.name} failed its probe, will be restarted")
                self._halt(container)
        elif time.monotonic() >= container.due:
            self._start(container)
        return True

    def _look(self, container: Container) -> None:
        asked = cri.ContainerStatusRequest(container_id=container.identity)
        status = self.runtime.ContainerStatus(asked).status
        container.reference = status.image_ref
        if status.state != cri.CONTAINER_EXITED or not container.running:
            return
        assert container.probes is not None
        container.probes.end()
        terminated = {
            "exitCode": status.exit_code, "reason": "Completed" if status.exit_code == 0 else "Error",
            "startedAt": container.state["running"]["startedAt"], "finishedAt": now(),
            "containerID": f"containerd://{container.identity}",
        }  # fmt: skip
        container.last = {"terminated": terminated}
        if self.pod["spec"].get("restartPolicy", "Always") != "Always":
            container.state = container.last
            container.due = float("inf")
            return
        container.due = time.monotonic() + container.back_off()
        container.state = {"waiting": {"reason": "CrashLoopBackOff"}} if container.back_off() else container.last

    def _start(self, container: Container) -> None:
        image = container.spec["image"]
        if not self.kubelet.machine.has_image(image):
            container.state = {"waiting": {"reason": "ErrImageNeverPull", "message": f"no registry has {image}"}}
            container.due = time.monotonic() + AGAIN_SECONDS
            return
        container.attempt += 1
        environment = self._volumes.environment(container.spec, self.kubelet.services)
        mounts = self._volumes.mounts(container.spec, self._places)
        config = translation.container(self.pod, container.spec, container.attempt, environment, mounts)
        asked = cri.CreateContainerRequest(pod_sandbox_id=self.sandbox, config=config, sandbox_config=self._config)
        identity = self.runtime.CreateContainer(asked).container_id
        if container.identity:
            self.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container.identity))
        container.identity = identity
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=identity))
        container.probes = Probes(self.kubelet.machine, container.spec, self.address)
        container.probes.start()
        container.state = {"running": {"startedAt": now()}}
        self.say("Started", f"Started container {container.name}", warning=False)

    # --- the end -----------------------------------------------------------------------------------------------------
    def _halt(self, container: Container) -> None:
        if container.probes is not None:
            container.probes.end()
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds")
        if grace is None:
            grace = self.pod["spec"].get("terminationGracePeriodSeconds", GRACE_SECONDS)
        self.runtime.StopContainer(cri.StopContainerRequest(container_id=container.identity, timeout=grace))

    def _terminate(self) -> bool:
        living = [container for container in self.containers.values() if container.running]
        stopping = [threading.Thread(target=self._halt, args=(container,)) for container in living]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._clear_away()
        self.sandbox = ""
        self.kubelet.forget(self.pod)
        return True

    # --- what others see ---------------------------------------------------------------------------------------------
    def say(self, reason: str, message: str, *, warning: bool = True) -> None:
        if (reason, message) not in self._said:
            self._said.add((reason, message))
            self.kubelet.say(self.pod, reason, message, warning=warning)

    def _tell(self) -> None:
        statuses = [container.status for container in self.containers.values()]
        ready = all(each["ready"] for each in statuses)
        finished = all("terminated" in each["state"] for each in statuses) and not any(
            container.due < float("inf") for container in self.containers.values()
        )
        phase = "Succeeded" if finished else "Running" if any(each["containerID"] for each in statuses) else "Pending"
        host = self.kubelet.machine.host.address
        told = {
            "phase": phase, "hostIP": host, "hostIPs": [{"ip": host}], "startTime": self._began,
            "containerStatuses": statuses,
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": self._began},
                {"type": "Initialized", "status": "True", "lastTransitionTime": self._began},
                *(self._condition(kind, ready) for kind in ("ContainersReady", "Ready")),
            ],
        }  # fmt: skip
        if self.address:
            told |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        if told != self._told and self.kubelet.tell(self.pod, told):
            self._told = told

    def _condition(self, kind: str, ready: bool) -> Json:
        wanted = "True" if ready else "False"
        for known in self._told.get("conditions", ()):
            if known["type"] == kind and known["status"] == wanted:
                same: Json = known
                return same
        return {"type": kind, "status": wanted, "lastTransitionTime": now()}
