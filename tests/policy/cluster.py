"""A cluster with policies: agents and `tunrouter npc` on hosts, pods by the CNI plugin, objects as kubelets write them.

    host1: x/a  x/c  y/b  z/a  z/c      host2: x/b  y/a  y/c  z/b      outside 192.0.2.50, with routes to pods

Law: policies, labels and addresses reach the product by the API server alone; that they are in force is what the
product says of itself, and whether that is true is for the probes to find.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final

from tests.kube.scene import PORT, Scene, conflist, scene
from tests.policy.probing import PORTS, PROTOCOLS, Cell, Prober
from tunrouter.agent.kubernetes import NETWORK
from tunrouter.bench.agent import CLI
from tunrouter.bench.fabric import GATEWAY
from tunrouter.bench.lab import Host
from tunrouter.bench.lab import Pod as Attached
from tunrouter.bench.libcni import Runtime
from tunrouter.bench.namespaces import Namespace, stop, wait_until
from tunrouter.edge import netns
from tunrouter.edge.api.client import Client
from tunrouter.edge.api.policing import ExplainCall, Explained, PoliciesCall, PolicyTable
from tunrouter.errors import AgentError, AgentUnreachableError

Json = dict[str, Any]
NETWORKING: Final = "networking.k8s.io/v1"
NAMESPACES: Final = ("x", "y", "z")
NAMES: Final = ("a", "b", "c")
OUTSIDE: Final = "outside"
OUTSIDE_ADDRESS: Final = "192.0.2.50"
RANGE: Final = "10.32.0.0/12"
_numbers = itertools.count(1)


@dataclass
class Pod:
    namespace: str
    name: str
    host: Host
    attached: Attached
    labels: dict[str, str]
    ports: list[Json]
    container: str = field(default_factory=lambda: f"sandbox{next(_numbers)}")

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def address(self) -> str:
        return self.attached.address

    def thing(self, *, phase: str = "Running") -> Json:
        """As the API has it when its kubelet has told its address."""
        containers = [{"name": "main", "image": "example/main", "ports": self.ports}]
        status = {"phase": phase, "podIP": self.address, "podIPs": [{"ip": self.address}],
                  "hostIP": self.host.address}  # fmt: skip
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
                "spec": {"nodeName": self.host.name, "containers": containers}, "status": status}  # fmt: skip


def named_ports(name: str) -> list[Json]:
    """Those of every pod, `serve-80-tcp` and so on; and `web`, which is another port from pod to pod, or of UDP."""
    number, protocol = {"a": (80, "TCP"), "b": (81, "TCP")}.get(name, (81, "UDP"))
    return [
        *({"name": f"serve-{port}-{protocol.lower()}", "containerPort": port, "protocol": protocol}
          for port in PORTS for protocol in PROTOCOLS),
        {"name": "web", "containerPort": number, "protocol": protocol},
    ]  # fmt: skip


class Npc:
    """`tunrouter npc` on one host."""

    def __init__(self, made: Scene, host: Host) -> None:
        self.host = host
        self._scene = made
        self._client = Client(host.agent.directory / "run" / "npc.sock", 5.0)
        self.log = host.agent.directory / "npc.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        environment = self.host.agent.environment | {
            "TUNROUTER_NAME": self.host.name,
            "TUNROUTER_APISERVER": f"https://{GATEWAY}:{PORT}",
            "TUNROUTER_SERVICE_ACCOUNT": str(self._scene.account),
        }
        with self.log.open("ab") as log:
            self.process = self.host.namespace.spawn(*CLI, "npc", stdout=log, env=environment)
        if wait:
            wait_until(f"policies are in force on {self.host}", self.in_force, 20)

    def stop(self) -> None:
        """SIGTERM."""
        if self.process is not None:
            stop(self.process)
            self.process = None

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def said(self, text: str) -> int:
        """How often its log has that."""
        return self.log.read_text().count(text)

    def table(self) -> PolicyTable | None:
        """None: it does not answer."""
        try:
            return self._client.ask(PoliciesCall(), PolicyTable)
        except (AgentUnreachableError, AgentError):
            return None

    def explains(self, source: str, destination: str, protocol: str, port: int) -> Explained:
        return self._client.ask(ExplainCall(source, destination, port, protocol), Explained)

    def metrics(self) -> dict[str, float]:
        """By name and labels, as they are written."""
        with netns.Namespace(str(self.host.namespace.path)) as entered, netns.within(entered, _metrics) as answer:
            lines = answer.read().decode().splitlines()
        told = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in told}

    def in_force(self, names: Iterable[tuple[str, str]] | None = None) -> bool:
        """All that it knows, and with `names` that it knows these and no others. Raises if it has ended."""
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"npc of {self.host} has ended: {self.log.read_text()[-2000:]}")
        told = self.table()
        if told is None or not told.in_force:
            return False
        return names is None or {(row.namespace, row.name) for row in told.policies} == set(names)


class Cluster:
    def __init__(self, made: Scene) -> None:
        self.scene = made
        self.hosts = made.lab.hosts
        self.pods: dict[str, Pod] = {}
        self.npcs = [Npc(made, host) for host in self.hosts]
        self.outside = Namespace(f"{made.lab.name}-{OUTSIDE}")
        self.labels: dict[str, dict[str, str]] = {}
        """Of namespaces."""
        self.policies: dict[tuple[str, str], Json] = {}
        self._bridges: dict[str, str] = {}

    # --- places ------------------------------------------------------------------------------------------------------
    @property
    def places(self) -> dict[str, Namespace]:
        return {
            **{key: pod.attached.namespace for key, pod in self.pods.items()},
            **{host.name: host.namespace for host in self.hosts},
            OUTSIDE: self.outside,
        }

    @property
    def addresses(self) -> dict[str, str]:
        return {
            **{key: pod.address for key, pod in self.pods.items()},
            **{host.name: host.address for host in self.hosts},
            OUTSIDE: OUTSIDE_ADDRESS,
        }

    def bridge(self, host: Host) -> str:
        """The address by which a node is known among pods; it keeps it."""
        if host.name not in self._bridges:
            self._bridges[host.name] = host.agent.snapshot().host.bridge_address.partition("/")[0]
        return self._bridges[host.name]

    def cells(self, sources: Iterable[str] | None = None, destinations: Iterable[str] | None = None) -> Iterator[Cell]:
        """Of these with each other; at least one end is a pod, and none asks itself."""
        addresses = self.addresses
        for source in sources or addresses:
            for destination in destinations or addresses:
                if source != destination and (source in self.pods or destination in self.pods):
                    for protocol in PROTOCOLS:
                        for port in PORTS:
                            yield Cell(source, addresses[destination], protocol, port)

    # --- objects -----------------------------------------------------------------------------------------------------
    def plant(self, thing: Json) -> None:
        self.scene.control.do("plant", thing=thing)

    def label_namespace(self, name: str, **labels: str) -> None:
        self.labels[name] = {"kubernetes.io/metadata.name": name, "ns": name, **labels}
        self.plant({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": self.labels[name]}})

    def label_pod(self, key: str, **labels: str) -> None:
        self.pods[key].labels = {"pod": self.pods[key].name, **labels}
        self.plant(self.pods[key].thing())

    def enforce(self, *policies: Json, seconds: float = 10.0) -> None:
        """These and no others; returns when every host says so."""
        self.apply(*policies)
        self.wait_in_force(seconds)

    def apply(self, *policies: Json) -> None:
        """The last of them is for nobody: who knows it knows the others, edited as they may be."""
        wanted = {_key(each): each for each in (*policies, nobodys(next(_numbers)))}
        for each in wanted.values():
            self.plant(each)
        for namespace, name in self.policies.keys() - wanted.keys():
            self.scene.control.do("remove", api_version=NETWORKING, kind="NetworkPolicy", name=name,
                                  namespace=namespace)  # fmt: skip
        self.policies = wanted

    def wait_in_force(self, seconds: float = 10.0) -> None:
        for npc in self.npcs:
            wait_until(f"{sorted(self.policies)} are in force on {npc.host}",
                       lambda npc=npc: npc.in_force(self.policies), seconds, pause=0.01)  # type: ignore[misc]  # fmt: skip

    # --- pods --------------------------------------------------------------------------------------------------------
    def add_pod(self, namespace: str, name: str, host: Host, labels: Mapping[str, str] | None = None,
                *, told: bool = True, attached: Attached | None = None, address: str = "") -> Pod:  # fmt: skip
        """`told`: the API has its address, as its kubelet writes it after ADD; `attached`: its namespace is there.

        `address`: this one and no other.
        """
        attached = attached or host.make_namespace(f"{namespace}-{name}-{next(_numbers)}")
        pod = Pod(namespace, name, host, attached, dict(labels or {"pod": name}), named_ports(name))
        self.plant({**pod.thing(), "status": {"phase": "Pending"}})
        wishes: Json = {"runtimeConfig": {"ips": [address]}} if address else {}
        result = self.runtime(pod).add(pod.container, attached.namespace, **wishes)
        attached.address = result["ips"][0]["address"].partition("/")[0]
        self.pods[pod.key] = pod
        self.outside.ip(f"route replace {pod.address} via {host.address}")
        if told:
            self.plant(pod.thing())
        return pod

    def delete_pod(self, pod: Pod) -> None:
        """Its sandbox, and then the object."""
        self.runtime(pod).delete(pod.container, pod.attached.namespace)
        self.scene.control.do("remove", api_version="v1", kind="Pod", name=pod.name, namespace=pod.namespace)
        del self.pods[pod.key]

    def runtime(self, pod: Pod) -> Runtime:
        runtime = Runtime(pod.host, network=NETWORK)
        runtime.arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name}"
        return runtime


def _metrics() -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", 6781, timeout=10)
    connection.request("GET", "/metrics")
    return connection.getresponse()


def nobodys(number: int) -> Json:
    """A policy in a namespace without pods."""
    metadata = {"name": f"edit-{number}", "namespace": "kube-public"}
    return {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}}}


def _key(thing: Json) -> tuple[str, str]:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


@contextmanager
def cluster(hosts: int = 2, *, pods: bool = True, npc: bool = True) -> Iterator[Cluster]:
    """`pods`: the nine of them."""
    with scene(hosts) as made:
        made.start(*made.lab.hosts, expect_npc=npc)
        found = Cluster(made)
        for host in made.lab.hosts:
            made.wait(f"{host}'s network is installed", lambda host=host: conflist(host) and made.ready(host), 30)  # type: ignore[misc]
            host.agent.wait_established(hosts - 1, 30)
        found.outside.create()
        try:
            made.lab.fabric.plug(found.outside, OUTSIDE, f"{OUTSIDE_ADDRESS}/24")
            for namespace in NAMESPACES:
                found.label_namespace(namespace)
            for each in found.npcs if npc else ():
                each.start(wait=False)
            for at, (namespace, name) in enumerate(itertools.product(NAMESPACES, NAMES) if pods else ()):
                found.add_pod(namespace, name, found.hosts[at % hosts])
            if npc:
                found.wait_in_force(20)
            yield found
        finally:
            for each in found.npcs:
                each.stop()
            found.outside.delete()


@contextmanager
def probed(hosts: int = 2) -> Iterator[tuple[Cluster, Prober]]:
    with cluster(hosts) as found, Prober(found.places) as prober:
        yield found, prober
