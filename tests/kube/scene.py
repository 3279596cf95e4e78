"""A cluster: the tests' API server on the underlay, and hosts whose agents run as they do in the DaemonSet's pods.

    fabric 192.0.2.254:6443 ── the API server      host N ── `tunrouter up --kubernetes` ── Node "hostN", 192.0.2.N

Law: the server is another process, spoken to by HTTP alone, or by its control socket for faults. It enforces the rights
that the manifest gives, so that an agent which asks for more fails here.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kube.apiserver.control import Remote
from tests.kube.apiserver.rights import ADMIN
from tests.kube.caller import Caller
from tunrouter.bench.fabric import GATEWAY
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.namespaces import Namespace, stop, wait_until
from tunrouter.edge import netns

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "k8s" / "tunrouter-daemonset-k8s.yaml"
PORT = 6443
ACCOUNT = "system:serviceaccount:kube-system:weave-net"
BLOCKS = "weave-net-blocks"
SERVICE = "10.96.0.1"
"""Of the Service `kubernetes`, which leads to the server by kube-proxy."""
Json = dict[str, Any]


class Scene:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory
        self.control = Remote(self.directory / "apiserver.sock")
        self.account = self.directory / "account"
        self.authority = self.directory / "tls" / "ca.crt"

    # --- the cluster -------------------------------------------------------------------------------------------------
    def add_node(self, host: Host, **annotations: str) -> str:
        """As its kubelet registers it; returns its UID."""
        node = {
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": host.name, "annotations": annotations, "labels": {"kubernetes.io/os": "linux"}},
            "status": {"addresses": [{"type": "InternalIP", "address": host.address},
                                     {"type": "Hostname", "address": host.name}]},
        }  # fmt: skip
        uid: str = self.control.do("plant", thing=node)["metadata"]["uid"]
        return uid

    def delete_node(self, host: Host) -> None:
        self.control.do("remove", api_version="v1", kind="Node", name=host.name)

    def node(self, host: Host) -> Json:
        found: Json = self.control.do("get", api_version="v1", kind="Node", name=host.name)
        return found

    def condition(self, host: Host) -> Json:
        """NetworkUnavailable; empty if nobody has said anything."""
        found = [one for one in self.node(host)["status"].get("conditions", []) if one["type"] == "NetworkUnavailable"]
        return found[0] if found else {}

    def leases(self) -> dict[str, str]:
        """By name, whose they are."""
        found = self.control.do("all", api_version="coordination.k8s.io/v1", kind="Lease", namespace=BLOCKS)
        return {one["metadata"]["name"]: one["spec"]["holderIdentity"] for one in found}

    def lease(self, name: str) -> Json:
        found: Json = self.control.do(
            "get", api_version="coordination.k8s.io/v1", kind="Lease", name=name, namespace=BLOCKS
        )
        return found

    def events(self, reason: str) -> list[Json]:
        found = self.control.do("all", api_version="v1", kind="Event", namespace="default")
        return [one for one in found if one["reason"] == reason]

    def writes(self, host: Host) -> list[Json]:
        found: list[Json] = self.control.do("writes", node=host.name)
        return found

    def caller(self, namespace: Namespace) -> Caller:
        """An administrator who calls out of this network."""

        def dial() -> socket.socket:
            with netns.Namespace(str(namespace.path)) as entered:
                return netns.within(entered, lambda: socket.create_connection((GATEWAY, PORT), 10))

        return Caller(dial, GATEWAY, self.authority, self.control.do("token", user=ADMIN))

    # --- agents ------------------------------------------------------------------------------------------------------
    def start(
        self,
        *hosts: Host,
        password: str | None = "of this lab only",
        wait: bool = True,
        expect_npc: bool = False,
        **environment: str,
    ) -> None:
        """Returns when all are up. `expect_npc`: somebody listens on `npc_socket`."""
        for host in hosts:
            host.agent.block = ""
            host.agent.extra_environment = {
                "TUNROUTER_KUBERNETES": "1",
                "TUNROUTER_EXPECT_NPC": str(int(expect_npc)),
                "TUNROUTER_APISERVER": f"https://{GATEWAY}:{PORT}",
                "TUNROUTER_SERVICE_ACCOUNT": str(self.account),
                "TUNROUTER_CNI_BIN_DIR": str(host.agent.directory / "bin"),
                "TUNROUTER_CNI_CONF_DIR": str(host.agent.directory / "net.d"),
                "TUNROUTER_METRICS_ADDR": "127.0.0.1:6782",
                **environment,
            }
            host.agent.start(password=password, wait=False)
        for host in hosts if wait else ():
            host.agent.wait_ready()

    def wait(self, what: str, condition: Callable[[], object], seconds: float = 10.0) -> None:
        wait_until(what, lambda: bool(condition()), seconds, pause=0.05)

    def ready(self, host: Host) -> bool:
        return host.agent.command("status", check=False).returncode == 0


def npc_socket(host: Host) -> Path:
    return host.agent.directory / "run" / "npc.sock"


@contextmanager
def scene(hosts: int, *, nodes: bool = True, applied: bool = True) -> Iterator[Scene]:
    """`nodes`: have their objects; `applied`: the manifest's objects are there, too."""
    objects = ("--manifest", str(MANIFEST)) if applied else ()
    with Lab(hosts=hosts, offloads="off") as lab:
        made = Scene(lab)
        log = (lab.directory / "apiserver.log").open("wb")
        server = lab.fabric.namespace.spawn(
            sys.executable, "-m", "tests.kube.apiserver", "--host", GATEWAY, "--port", str(PORT),
            "--tls", str(lab.directory / "tls"), "--mount", str(made.account), "--user", ACCOUNT,
            *objects, "--name", SERVICE, "--rbac", "--control", str(made.directory / "apiserver.sock"),
            stdout=log, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        try:
            wait_until("the API server answers", made.control.listens, 20)
            for host in lab.hosts if nodes else ():
                made.add_node(host)
            yield made
        finally:
            stop(server)
            log.close()


def conflist(host: Host) -> Json | None:
    path = host.agent.directory / "net.d" / "05-tunrouter.conflist"
    try:
        found: Json = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found
