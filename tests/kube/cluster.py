"""A whole cluster in a lab: machines with containerd, a kubelet each, controllers, kube-proxy, kubectl, the real image.

    kubectl apply ──> API server <── DaemonSet controller      machine N: kubelet ──(CRI)──> containerd ──> the image
                                                                10.96.0.1:443 ──(kube-proxy)──> 192.0.2.254:6443

Law: nothing of tunrouter runs here but what the image and the manifest bring.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from cri_api.v1 import api_pb2 as cri

from tests.kube.apiserver.rights import ADMIN
from tests.kube.controllers import Daemons, is_ready
from tests.kube.kubelet import Kubelet
from tests.kube.machine import Machine
from tests.kube.scene import MANIFEST, PORT, ROOT, SERVICE, Scene, scene
from tests.runtimes import image
from tunrouter.bench.fabric import GATEWAY
from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import Namespace, run, wait_until

Json = dict[str, Any]
ARCHIVE: Final = ROOT / "build" / "tunrouter-image.tar"
BUILD_SECONDS: Final = 900
READY_SECONDS: Final = 60.0
SYSTEM: Final = "kube-system"
SERVICES: Final = {
    "KUBERNETES_SERVICE_HOST": SERVICE,
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": f"tcp://{SERVICE}:443",
}
PROXY: Final = f"""\
table ip kube-proxy {{
    chain output {{
        type nat hook output priority -100;
        ip daddr {SERVICE} tcp dport 443 dnat to {GATEWAY}:{PORT}
    }}
}}
"""


def archive() -> Path:
    """The image of this checkout."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "COV"))}
    subprocess.run(["make", "-s", "image"], cwd=ROOT, env=outer, timeout=BUILD_SECONDS, check=True, capture_output=True)
    return ARCHIVE


class Cluster:
    def __init__(self, made: Scene, machines: Sequence[Machine]) -> None:
        self.scene = made
        self.machines = tuple(machines)
        self.kubelets = tuple(Kubelet(made, machine, SERVICES) for machine in machines)
        self._admin = made.caller(made.lab.fabric.namespace)
        self._daemons = Daemons(self._admin)

    def start(self, *, proxied: bool = True) -> None:
        """Without kube-proxy nobody reaches the API server by its Service."""
        for kubelet in self.kubelets:
            if proxied:
                proxy(kubelet.machine.host)
            kubelet.start()
        self._daemons.start()

    def stop(self) -> None:
        self._daemons.end()
        for kubelet in self.kubelets:
            kubelet.stop()

    # --- as its administrator ----------------------------------------------------------------------------------------
    def kubectl(self, command: str, *, check: bool = True, stdin: str | None = None) -> str:
        """What it prints; also of its errors where they are wanted."""
        token, cache = self.scene.control.do("token", user=ADMIN), str(self.scene.directory / "kubectl")
        access = ("--server", f"https://{GATEWAY}:{PORT}", "--certificate-authority", str(self.scene.authority),
                  "--token", token, "--cache-dir", cache)  # fmt: skip
        argv = self.scene.lab.fabric.namespace.enter(["kubectl", *access, *command.split()])
        done = run(argv, stdin=stdin or "", check=check, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
        return done.stdout if check else done.stdout + done.stderr

    def apply(self) -> str:
        return self.kubectl(f"apply -f {MANIFEST}")

    def agents(self) -> dict[str, Json]:
        """The DaemonSet's pods, by their node."""
        found = self._admin.list("v1", "Pod", SYSTEM, "labelSelector=name%3Dweave-net")["items"]
        return {pod["spec"]["nodeName"]: pod for pod in found if not pod["metadata"].get("deletionTimestamp")}

    def node_ready(self, kubelet: Kubelet) -> bool:
        node = self._admin.get("v1", "Node", kubelet.machine.name) or {}
        conditions = node.get("status", {}).get("conditions") or ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def agent_serves(self, kubelet: Kubelet) -> bool:
        """The container weave is ready, whatever the one beside it does."""
        pod = self.agents().get(kubelet.machine.name, {})
        statuses = pod.get("status", {}).get("containerStatuses") or ()
        return any(each["name"] == "weave" and each["ready"] for each in statuses)

    def wait_serving(self, *kubelets: Kubelet, seconds: float = READY_SECONDS) -> None:
        for kubelet in kubelets or self.kubelets:
            self.wait(f"the agent on {kubelet.machine} is ready", partial(self.agent_serves, kubelet), seconds)

    def wait(self, what: str, condition: Callable[[], object], seconds: float = 10.0) -> None:
        wait_until(what, lambda: bool(condition()), seconds, pause=0.05)

    def exec(self, kubelet: Kubelet, *argv: str) -> tuple[int, str]:
        """In the container weave of this node."""
        return kubelet.execute(self.agents()[kubelet.machine.name]["metadata"]["name"], "weave", *argv)

    # --- ordinary pods -----------------------------------------------------------------------------------------------
    def bring(self, name: str, kubelet: Kubelet, *command: str) -> None:
        """A pod on this node, bound as a scheduler binds it."""
        container = {"name": "only", "image": image.NAME, "command": list(command or ("sleep", "infinity"))}
        spec = {"nodeName": kubelet.machine.name, "containers": [container], "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False}  # fmt: skip
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        self._admin.create(pod)

    def pod(self, name: str) -> Json:
        found: Json = self._admin.get("v1", "Pod", name, "default") or {}
        return found

    def address(self, name: str, seconds: float = 20.0) -> str:
        """Returns when it runs."""
        self.wait(f"pod {name} runs", lambda: is_ready(self.pod(name)), seconds)
        return str(self.pod(name)["status"]["podIP"])

    def run_in(self, name: str, *argv: str) -> tuple[int, str]:
        node = self.pod(name)["spec"]["nodeName"]
        kubelet = next(each for each in self.kubelets if each.machine.name == node)
        return kubelet.execute(name, "only", *argv)

    def place(self, name: str) -> Place:
        node = self.pod(name)["spec"]["nodeName"]
        kubelet = next(each for each in self.kubelets if each.machine.name == node)
        address = self.address(name)
        return Place(Inside(kubelet, name), address)

    def pings(self, name: str, address: str) -> bool:
        return "1 packets received" in self.run_in(name, "ping", "-n", "-c", "1", "-W", "5", address)[1]

    def remove(self, *names: str) -> None:
        for name in names:
            self._admin.delete("v1", "Pod", name, "default")
        for name in names:
            self.wait(f"pod {name} is gone", partial(self._is_gone, name), 30)

    def _is_gone(self, name: str) -> bool:
        return not self.pod(name)

    def events(self, pod: str) -> list[Json]:
        found = self._admin.list("v1", "Event", "default", f"fieldSelector=involvedObject.name%3D{pod}")["items"]
        return list(found)


class Inside(Namespace):
    """The network of an ordinary pod, entered from outside."""

    def __init__(self, kubelet: Kubelet, name: str) -> None:
        worker = kubelet.worker(name)
        asked = cri.PodSandboxStatusRequest(pod_sandbox_id=worker.sandbox, verbose=True)
        info = json.loads(kubelet.machine.runtime.PodSandboxStatus(asked).info["info"])
        path = next(each["path"] for each in info["runtimeSpec"]["linux"]["namespaces"] if each["type"] == "network")
        super().__init__(Path(path).name)
        self.path = kubelet.machine.inside(path.replace("/var/run/", "/run/"))


class Place(NamedTuple):
    """Where traffic begins or ends."""

    namespace: Namespace
    address: str


def proxy(host: Host) -> None:
    """What kube-proxy does for the Service `kubernetes`."""
    run(host.namespace.enter(["nft", "-f", "-"]), stdin=PROXY)


@contextmanager
def cluster(hosts: int) -> Iterator[Cluster]:
    """Machines that are on, with the image; nothing is applied, nobody has started a kubelet."""
    image_of_ours = archive()
    with scene(hosts, nodes=False, applied=False) as made, ExitStack() as stack:
        pods = made.directory / "busybox.tar"
        image.write(pods)
        machines = [Machine(host, pods, image_of_ours) for host in made.lab.hosts]
        for machine in machines:
            stack.callback(machine.__exit__)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Machine.__enter__, machines))
        whole = Cluster(made, machines)
        stack.callback(whole.stop)
        yield whole
