"""`tunrouter npc` over TLS, with no other rights than the manifest gives: what it does, what it says, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.kube.apiserver import ApiServer, Served, serving
from tests.kube.apiserver.kinds import BY_KIND
from tests.npc.scene import DENY, NETWORKING, container, namespace, pod, policy
from tests.npc.tables import apply, listed
from tunrouter.bench.namespaces import Namespace, wait_until
from tunrouter.core.policy.nftables import FAMILY, TABLE
from tunrouter.edge.api.client import NPC, Client
from tunrouter.edge.api.policing import (
    Container,
    ContainersCall,
    EnforceCall,
    PoliciesCall,
    PolicyTable,
)
from tunrouter.edge.kube.faults import AccessError
from tunrouter.edge.processes import used
from tunrouter.errors import AgentAbsentError

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "k8s" / "tunrouter-daemonset-k8s.yaml"
ACCOUNT = "system:serviceaccount:kube-system:weave-net"
SECRET = "of this test only"
WEB, DB = "10.32.0.2", "10.32.0.3"
ODD = {**DENY, "ingress": [{"ports": [{"endPort": 3}]}]}
CLI = [sys.executable, "-m", "tunrouter.cli"]
pytestmark = pytest.mark.root


class Cluster:
    def __init__(self, served: Served, account: Path) -> None:
        self.served = served
        self.account = account

    def add(self, *objects: dict[str, Any]) -> None:
        self.served.do(lambda server: [server.plant(one) for one in objects])

    def remove(self, name: str, space: str = "shop") -> None:
        self.served.do(lambda server: server.remove(NETWORKING, "NetworkPolicy", name, space))

    def events(self, space: str) -> set[tuple[str, str, str, str]]:
        """Type, reason, whom they are about, message."""
        kind = BY_KIND["v1", "Event"]
        found = self.served.do(lambda server: server.store.select(kind, space, lambda _: True))
        return {(one["type"], one["reason"], one["involvedObject"]["name"], one["message"]) for one in found}

    def answers(self) -> set[int]:
        return {entry.code for entry in self.served.do(lambda server: list(server.journal))}


@pytest.fixture
def cluster(tmp_path: Path, inside: Namespace) -> Iterator[Cluster]:
    def enforce(server: ApiServer) -> None:
        server.load(MANIFEST)
        server.rights.tokens_wanted = server.rights.enforced = True
        for name in ("default", "shop", "free"):
            server.plant(namespace(name))

    with serving(tmp_path / "tls") as served:
        served.do(enforce)
        served.mount(tmp_path / "account", ACCOUNT)
        yield Cluster(served, tmp_path / "account")


class Npc:
    def __init__(self, process: subprocess.Popen[str], port: int, directory: Path) -> None:
        self.process = process
        self.socket = directory / "npc.sock"
        self._port = port
        self._log = directory / "log"

    def ask(self, path: str) -> tuple[int, str]:
        """Status 0: nobody listens."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.ask("/metrics")[1], re.MULTILINE)
        assert found, name
        return float(found[1])

    def tell(self, *containers: Container) -> None:
        """As the agent does."""
        wait_until("it listens", lambda: self._told(containers), 20)

    def _told(self, containers: tuple[Container, ...]) -> bool:
        """A socket has a file before anybody listens there."""
        try:
            Client(self.socket, asked=NPC).ask(ContainersCall(containers), object)
        except AgentAbsentError:
            return False
        return True

    def enforce(self, one: Container) -> None:
        Client(self.socket, asked=NPC).ask(EnforceCall(one), object)

    def policies(self) -> PolicyTable:
        return Client(self.socket, asked=NPC).ask(PoliciesCall(), PolicyTable)

    def wait_ready(self) -> None:
        wait_until("it is ready", lambda: self.ask("/readyz") == (200, "ready\n"), 20)

    def wait_in_force(self, *names: str) -> None:
        def in_force() -> bool:
            found = self.policies()
            return found.in_force and {row.name for row in found.policies} == set(names)

        wait_until(f"{names} are in force", in_force, 10)

    def cli(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [*CLI, "policy", *arguments, "--socket", str(self.socket)],
            env=clean(), cwd=ROOT, text=True, capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    @property
    def lines(self) -> list[str]:
        """Without the time."""
        return [line[9:] for line in self._log.read_text().splitlines()]

    def wait_says(self, pattern: str) -> None:
        """As the last of its lines that tell the state."""
        wait_until(f"it says {pattern}", lambda: re.search(pattern, self._state()), 20)

    def _state(self) -> str:
        return next((line for line in reversed(self.lines) if " node-a: " in line), "")

    def end(self) -> float:
        """How long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0
        return time.monotonic() - began


def clean(**environ: str) -> dict[str, str]:
    ours = ("TUNROUTER_", "WEAVE_", "KUBERNETES_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | environ


@contextmanager
def npc(directory: Path, *arguments: str, **environ: str) -> Iterator[Npc]:
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    command = [*CLI, "npc", "--listen", f"127.0.0.1:{port}", *arguments]
    directory.mkdir(exist_ok=True)
    environ = clean(TUNROUTER_RUN_DIR=str(directory), **environ)
    with (directory / "log").open("a") as log:
        process = subprocess.Popen(command, env=environ, cwd=ROOT, text=True, stderr=log)
    with process:
        try:
            yield Npc(process, port, directory)
        finally:
            process.kill()


def told(cluster: Cluster) -> dict[str, str]:
    return {"TUNROUTER_NAME": "node-a", "TUNROUTER_APISERVER": cluster.served.url,
            "TUNROUTER_SERVICE_ACCOUNT": str(cluster.account)}  # fmt: skip


def isolated(where: Namespace) -> set[str]:
    """Addresses of pods whose ingress a policy isolates, by the kernel."""
    return {json.loads(element) for element in listed(where)["set isolated-ingress4"]["elem"]}


def test_policies_are_in_force_and_stay_so(cluster: Cluster, inside: Namespace, tmp_path: Path) -> None:
    secrets = {"WEAVE_PASSWORD": SECRET, "TUNROUTER_PASSWORD_FILE": "/nowhere"}
    cluster.add(pod("web", WEB), pod("db"), policy("deny", DENY | {"podSelector": {"matchLabels": {"app": "db"}}}))
    with npc(tmp_path / "run", **told(cluster), **secrets) as started:
        started.tell(container(WEB, "web"))
        started.wait_ready()
        assert re.search("^info    weave-npc .* on node-a$", started.lines[0])
        assert SECRET.encode() not in Path(f"/proc/{started.process.pid}/environ").read_bytes()
        started.wait_says("^info .*1 NetworkPolicy in 1 namespace, in force, 0 of 1 pod here isolated$")
        started.enforce(container(DB, "db"))
        assert isolated(inside) == {DB}, "before the cluster has its address"

        cluster.add(policy("odd", ODD))
        started.wait_in_force("deny", "odd")
        assert isolated(inside) == {WEB, DB}
        started.wait_says("^warning .*2 NetworkPolicies in 1 namespace, in force, 2 of 2 .* first shop/odd: spec.ingre")
        what = "spec.ingress[0] permits nothing: endPort 3 has no port before it"
        event = ("Warning", "PolicyNotUnderstood", "odd", what)
        wait_until("the Event is there", lambda: event in cluster.events("shop"), 10)
        names = ("policies", "faulty_policies", "pods", "isolated_pods", "in_force", "in_touch", "ready")
        assert [started.metric(f"tunrouter_npc_{name}") for name in names] == [2, 1, 2, 2, 1, 1, 1]
        assert started.cli("list")[0] == 0
        code, text = started.cli("explain", "shop/web", "shop/db", "80")
        assert (code, text.splitlines()[0]) == (1, f"DENIED: TCP 80 from pod shop/web ({WEB}) to pod shop/db ({DB})")

        cluster.remove("odd")
        started.wait_in_force("deny")
        assert isolated(inside) == {DB}
        assert cluster.answers() <= {200, 201}, "the manifest gives the rights that it needs"

        cluster.served.do(lambda server: server.down())
        started.wait_says(
            "^info .*in force, 1 of 2 pods here isolated .as last heard; out of touch with the Kubernetes"
        )
        assert started.ask("/readyz")[0] == 200
        assert started.metric("tunrouter_npc_in_touch") == 0
        started.enforce(container("10.32.0.9", "docker", space="free"))
        assert started.end() < 3
    assert started.lines[-1] == "info    stopping"
    assert isolated(inside) == {DB}, "what is in force stays in force"


def test_a_successor_takes_over_and_what_others_change_is_repaired(
    cluster: Cluster, inside: Namespace, tmp_path: Path
) -> None:
    cluster.add(pod("db", DB), policy("deny", DENY))
    with npc(tmp_path / "run", **told(cluster)) as started:
        started.tell(container(DB, "db"))
        started.wait_in_force("deny")
    before = listed(inside)
    cluster.remove("deny")
    with npc(tmp_path / "run", **told(cluster)) as successor:
        wait_until("it waits for the agent", lambda: "has not told" in successor.ask("/readyz")[1], 20)
        assert listed(inside) == before, "until all is known the kernel keeps what it has"
        successor.tell(container(DB, "db"))
        successor.wait_in_force()
        assert isolated(inside) == set()
        cluster.add(policy("deny", DENY))
        successor.wait_in_force("deny")
        wanted = listed(inside)
        for vandalism in (f"flush table {FAMILY} {TABLE}", f"delete table {FAMILY} {TABLE}", "flush ruleset"):
            apply(inside, vandalism)
            wait_until("it is repaired", lambda: is_listed(inside) and listed(inside) == wanted, 5)
        wait_until("it is told", lambda: successor.metric("tunrouter_npc_repairs_total") == 3, 5)
        repaired = f"^warning table {FAMILY} {TABLE} was changed by nft: it is written anew$"
        assert sum(bool(re.search(repaired, line)) for line in successor.lines) == 3


def is_listed(where: Namespace) -> bool:
    return not where.run("nft", "list", "table", FAMILY, TABLE, check=False).returncode


def test_an_api_that_is_away_at_the_start_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    cluster.served.do(lambda server: server.down())
    environ = {"TUNROUTER_SERVICE_ACCOUNT": str(cluster.account), "TUNROUTER_LOG_FORMAT": "json"}
    with npc(tmp_path / "run", "--name", "node-a", "--apiserver", cluster.served.url, **environ) as started:
        wait_until("it is alive", lambda: started.ask("/healthz") == (200, "ok\n"), 20)
        started.tell()
        wait_until("the API was asked", lambda: "refused" in started.ask("/readyz")[1], 10)
        assert started.ask("/readyz")[0] == 503
        before, began = used(started.process.pid).cpu_seconds, time.monotonic()
        cluster.served.do(lambda server: server.up())
        started.wait_ready()
        assert used(started.process.pid).cpu_seconds - before < 0.2 * max(1.0, time.monotonic() - began)
        assert started.metric("tunrouter_npc_ready") == started.metric("tunrouter_npc_in_touch") == 1
        assert started.end() < 3
    said = [json.loads(line) for line in (tmp_path / "run" / "log").read_text().splitlines()]
    assert {line["subject"] for line in said} >= {"tunrouter.npc"}


def test_a_node_that_expects_none_has_none(cluster: Cluster, inside: Namespace, tmp_path: Path) -> None:
    cluster.add(pod("db", DB), policy("deny", DENY))
    with npc(tmp_path / "run", **told(cluster), EXPECT_NPC="0") as started:
        started.tell(container(DB, "db"))
        started.wait_ready()
        wait_until("it says so", lambda: "EXPECT_NPC says that" in started.policies().why, 20)
        wait_until("policies are known", lambda: started.policies().policies, 20)
        assert not started.policies().in_force
        assert not is_listed(inside)


def test_where_nothing_says_which_cluster_it_does_not_start() -> None:
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [*CLI, "npc"], env=clean(), cwd=ROOT, text=True, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == AccessError.exit_code
    assert done.stderr.startswith("tunrouter: neither TUNROUTER_APISERVER nor KUBERNETES_SERVICE_HOST is set")
    assert done.stderr.count("\n") == 1
