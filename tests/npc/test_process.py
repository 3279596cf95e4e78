"""`tunrouter npc` over TLS, with no other rights than the manifest gives: what it says, where, and its end."""

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
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.kube.faults import AccessError
from tunrouter.edge.processes import used

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "k8s" / "tunrouter-daemonset-k8s.yaml"
ACCOUNT = "system:serviceaccount:kube-system:weave-net"
SECRET = "of this test only"
NETWORKING = "networking.k8s.io/v1"


class Cluster:
    def __init__(self, served: Served, account: Path) -> None:
        self.served = served
        self.account = account

    def add(self, name: str, namespace: str) -> None:
        policy = {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace},
                  "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}  # fmt: skip
        self.served.do(lambda server: server.plant(policy))

    def remove(self, name: str, namespace: str) -> None:
        self.served.do(lambda server: server.remove(NETWORKING, "NetworkPolicy", name, namespace))

    def events(self) -> set[tuple[str, str, str, str]]:
        """Type, reason, whom they are about, message up to what is the same in each."""
        kind = BY_KIND["v1", "Event"]
        found = self.served.do(lambda server: server.store.select(kind, "default", lambda _: True))
        return {(one["type"], one["reason"], one["involvedObject"]["name"], one["message"].partition(" by this")[0])
                for one in found}  # fmt: skip

    def answers(self) -> set[int]:
        return {entry.code for entry in self.served.do(lambda server: list(server.journal))}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    def enforce(server: ApiServer) -> None:
        server.load(MANIFEST)
        server.rights.tokens_wanted = server.rights.enforced = True
        for name in ("default", "shop"):
            server.plant({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    with serving(tmp_path / "tls") as served:
        served.do(enforce)
        served.mount(tmp_path / "account", ACCOUNT)
        yield Cluster(served, tmp_path / "account")


class Npc:
    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self._port = port
        self._log = log

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
    command = [sys.executable, "-m", "tunrouter.cli", "npc", "--listen", f"127.0.0.1:{port}", *arguments]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, env=clean(**environ), cwd=ROOT, text=True, stderr=log)
    with process:
        try:
            yield Npc(process, port, directory / "log")
        finally:
            process.kill()


def test_policies_are_said_not_to_be_enforced_while_there_are_any(cluster: Cluster, tmp_path: Path) -> None:
    environ = {"TUNROUTER_NAME": "node-a", "TUNROUTER_APISERVER": cluster.served.url,
               "TUNROUTER_SERVICE_ACCOUNT": str(cluster.account),
               "WEAVE_PASSWORD": SECRET, "TUNROUTER_PASSWORD_FILE": "/nowhere"}  # fmt: skip
    with npc(tmp_path, **environ) as started:
        wait_until("it is ready", lambda: started.ask("/readyz") == (200, "ready\n"), 20)
        assert re.search("^warning weave-npc .* on node-a: this version does NOT enforce", started.lines[0])
        assert SECRET.encode() not in Path(f"/proc/{started.process.pid}/environ").read_bytes()
        policies = [("deny", "default"), ("deny", "shop"), ("allow", "shop")]
        for policy in policies:
            cluster.add(*policy)
        started.wait_says("^warning .*3 NetworkPolicies in 2 namespaces are NOT enforced by this version")
        warned = ("Warning", "PoliciesNotEnforced", "node-a", "3 NetworkPolicies in 2 namespaces are NOT enforced")
        wait_until("the Event is there", lambda: warned in cluster.events(), 10)
        assert started.metric("tunrouter_npc_unenforced_policies") == started.metric("tunrouter_npc_policies") == 3
        assert started.metric("tunrouter_npc_policy_namespaces") == 2

        for policy in policies:
            cluster.remove(*policy)
        started.wait_says("^info .*no NetworkPolicies in the cluster$")
        assert started.metric("tunrouter_npc_policies") == 0
        taken_back = ("Normal", "NoPolicies", "node-a", "no NetworkPolicies in the cluster")
        wait_until("it is taken back", lambda: taken_back in cluster.events(), 10)
        assert cluster.answers() <= {200, 201}, "the manifest gives the rights that it needs"

        cluster.served.do(lambda server: server.down())
        started.wait_says("^info .*no NetworkPolicies in the cluster .as last heard; out of touch with the Kubernetes")
        assert started.ask("/readyz")[0] == 200
        assert started.metric("tunrouter_npc_in_touch") == 0
        assert started.end() < 3
    assert started.lines[-1] == "info    stopping"


def test_an_api_that_is_away_at_the_start_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    cluster.served.do(lambda server: server.down())
    environ = {"TUNROUTER_SERVICE_ACCOUNT": str(cluster.account), "TUNROUTER_LOG_FORMAT": "json"}
    with npc(tmp_path, "--name", "node-a", "--apiserver", cluster.served.url, **environ) as started:
        wait_until("it is alive", lambda: started.ask("/healthz") == (200, "ok\n"), 20)
        wait_until("the API was asked", lambda: "refused" in started.ask("/readyz")[1], 10)
        assert started.ask("/readyz")[0] == 503
        before, began = used(started.process.pid).cpu_seconds, time.monotonic()
        cluster.served.do(lambda server: server.up())
        wait_until("it is ready", lambda: started.ask("/readyz")[0] == 200, 20)
        assert used(started.process.pid).cpu_seconds - before < 0.2 * max(1.0, time.monotonic() - began)
        assert started.metric("tunrouter_npc_ready") == started.metric("tunrouter_npc_in_touch") == 1
        assert started.end() < 3
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {line["subject"] for line in said} >= {"tunrouter.npc"}


def test_where_nothing_says_which_cluster_it_does_not_start() -> None:
    command = [sys.executable, "-m", "tunrouter.cli", "npc"]
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        command, env=clean(), cwd=ROOT, text=True, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == AccessError.exit_code
    assert done.stderr.startswith("tunrouter: neither TUNROUTER_APISERVER nor KUBERNETES_SERVICE_HOST is set")
    assert done.stderr.count("\n") == 1
