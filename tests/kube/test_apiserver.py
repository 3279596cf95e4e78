"""The tests' API server does what a real one does, as far as ours and `kubectl` can tell."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kube.apiserver import Served, serving
from tests.kube.apiserver.control import Remote
from tests.kube.apiserver.patches import json_patched, merged, strategic
from tests.kube.apiserver.refusals import Refusal
from tests.kube.reflecting import client_of, node, plant, run, stored, until
from tunrouter.bench.namespaces import wait_until
from tunrouter.edge.kube.faults import NotFoundError, RefusedError
from tunrouter.edge.kube.objects import LEASES, NODES, Lease, Metadata, Node, OwnerReference

ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: weave-net}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [nodes/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: weave-net}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: weave-net}
subjects: [{kind: ServiceAccount, name: weave-net, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: weave-net, namespace: default}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [one], verbs: [get, delete]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: weave-net, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: weave-net}
subjects: [{kind: ServiceAccount, name: weave-net, namespace: kube-system}]
"""
WORKLOAD = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: weave-net, namespace: kube-system, labels: {name: weave-net}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: weave-net, namespace: kube-system, labels: {name: weave-net}}
spec:
  selector: {matchLabels: {name: weave-net}}
  template:
    metadata: {labels: {name: weave-net}}
    spec:
      containers:
      - {name: weave, image: tunrouter/tunrouter, env: [{name: A, value: one}, {name: B, value: b}]}
      - {name: weave-npc, image: tunrouter/tunrouter}
"""


def owned(name: str, *owners: Node, namespace: str = "default") -> Lease:
    references = tuple(
        OwnerReference(api_version="v1", kind="Node", name=owner.metadata.name, uid=owner.metadata.uid)
        for owner in owners
    )
    return Lease(metadata=Metadata(name=name, namespace=namespace, owner_references=references))


def test_what_a_deleted_node_owned_is_collected(tmp_path: Path) -> None:
    async def scenario(served: Served) -> None:
        plant(served, "one", "two")
        async with client_of(served.access(tmp_path)) as client:
            one, two = await client.get(NODES, "one"), await client.get(NODES, "two")
            for lease in (owned("of-one", one), owned("of-both", one, two), owned("of-none")):
                await client.create(LEASES, lease)
            served.do(lambda server: server.remove("v1", "Node", "one"))
            plant(served, "one")  # The same name, and yet another node.
            await until("one's is gone", lambda: "of-one" not in stored(served, "Lease"))
            await client.create(LEASES, owned("late", one))
            await until("the late one is gone", lambda: "late" not in stored(served, "Lease"))
            kept = await client.get(LEASES, "of-both", "default")
            assert [owner.uid for owner in kept.metadata.owner_references] == [two.metadata.uid]
            assert set(stored(served, "Lease")) == {"of-both", "of-none"}
            served.do(lambda server: server.collector.stop())
            served.do(lambda server: server.remove("v1", "Node", "two"))
            await asyncio.sleep(0.2)
            assert "of-both" in stored(served, "Lease")
            served.do(lambda server: server.collector.start_again())
            await until("two's is gone", lambda: set(stored(served, "Lease")) == {"of-none"})

    with serving(collector_seconds=0.05) as served:
        run(scenario(served))


def test_the_roles_in_the_store_are_what_one_may(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "role.yaml").write_text(ROLE)
        served.do(lambda server: server.load(tmp_path / "role.yaml"))
        served.do(lambda server: setattr(server.rights, "enforced", True))
        served.mount(tmp_path, "system:serviceaccount:kube-system:weave-net")
        plant(served, "n1")
        async with client_of(served.access(tmp_path)) as client:
            await client.list(NODES)
            await client.patch(NODES, "n1", {"status": {}}, subresource="status")
            await client.create(LEASES, owned("one"))
            await client.create(LEASES, owned("two"))
            await client.delete(LEASES, "one", "default")
            refused = [
                client.patch(NODES, "n1", {"metadata": {"labels": {"a": "b"}}}),
                client.delete(NODES, "n1"),
                client.delete(LEASES, "two", "default"),
                client.list(LEASES, "default"),
                client.create(LEASES, owned("one", namespace="kube-system")),
            ]
            for ask in refused:
                with pytest.raises(RefusedError, match="forbidden"):
                    await ask

    run(scenario())


def test_some_nodes_are_cut_off_and_others_are_not(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        served.do(lambda server: server.partition("n1"))
        async with client_of(served.access(tmp_path), node="n2") as client:
            await client.list(NODES)
        async with client_of(served.access(tmp_path), node="n1") as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.list(NODES)
        assert [each.code for each in served.do(lambda server: list(server.journal)) if each.node == "n1"] in ([], [0])

    run(scenario())


def test_an_object_with_finalizers_waits_for_them(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        served.do(lambda server: server.plant(node("n1", finalizers=["example.com/x"])))
        async with client_of(served.access(tmp_path)) as client:
            await client.delete(NODES, "n1")
            assert (await client.get(NODES, "n1")).metadata.deletion_timestamp is not None
            await client.patch(NODES, "n1", {"metadata": {"finalizers": []}})
            with pytest.raises(NotFoundError):
                await client.get(NODES, "n1")

    run(scenario())


def test_a_patch_that_changes_nothing_is_no_change(served: Served, tmp_path: Path) -> None:
    async def scenario() -> None:
        plant(served, "n1")
        async with client_of(served.access(tmp_path)) as client:
            before = await client.get(NODES, "n1")
            assert await client.patch(NODES, "n1", {"metadata": {"labels": {"absent": None}}}) != before
            again = await client.get(NODES, "n1")
            assert await client.patch(NODES, "n1", {"metadata": {"labels": {}}}) == again

    run(scenario())


def test_strategic_patches_merge_by_key() -> None:
    pod = {"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}]}}
    patch: dict[str, Any] = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}, {"name": "c", "image": "1"}],
        }
    }
    assert strategic(pod, patch) == {
        "spec": {"containers": [{"name": "c", "image": "1"}, {"name": "a", "image": "2", "args": ["x"]}]}
    }
    metadata = {"metadata": {"finalizers": ["x"], "labels": {"a": "b"}}}
    assert strategic(metadata, {"metadata": {"finalizers": ["y"], "labels": None}}) == {
        "metadata": {"finalizers": ["x", "y"]}
    }
    assert strategic(metadata, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}) == {
        "metadata": {"finalizers": [], "labels": {"a": "b"}}
    }
    with pytest.raises(Refusal, match="merge key"):
        strategic({}, {"status": {"conditions": [{"status": "True"}, {"type": "x"}]}})


def test_json_patches() -> None:
    thing = {"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2]}
    operations = [
        {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "remove", "path": "/list/0"},
    ]
    assert json_patched(thing, operations) == {"metadata": {"labels": {"a/b": "2"}}, "list": [2, 3]}
    for wrong in ({"op": "test", "path": "/list/0", "value": 7}, {"op": "replace", "path": "/x", "value": 1}):
        with pytest.raises(Refusal, match="does not apply"):
            json_patched(thing, [wrong])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=50)
@given(target=st.dictionaries(st.sampled_from("abc"), JSON), patch=st.dictionaries(st.sampled_from("abc"), JSON))
def test_a_merge_patch_twice_is_as_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merged(target, patch)
    assert merged(once, patch) == once
    assert all(key not in once for key, value in patch.items() if value is None)


class Kubectl:
    def __init__(self, served: Served, directory: Path) -> None:
        self._token = served.mount(directory / "sa")
        self._where = ["--server", served.url, "--certificate-authority", str(directory / "sa" / "ca.crt")]
        self._env = {**os.environ, "HOME": str(directory), "KUBECONFIG": str(directory / "none")}

    def __call__(self, *words: str) -> str:
        command = ["kubectl", *self._where, "--token", self._token, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self._env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_kubectl_finds_itself_at_home(tmp_path: Path) -> None:
    """Applies, applies a change, looks, describes, and deletes, as one does with a cluster."""
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(WORKLOAD)
    with serving(tmp_path / "tls") as served:
        served.do(lambda server: setattr(server.rights, "tokens_wanted", True))
        kubectl = Kubectl(served, tmp_path)
        assert kubectl("apply", "-f", str(manifest)).splitlines() == [
            "serviceaccount/weave-net created",
            "daemonset.apps/weave-net created",
        ]
        manifest.write_text(WORKLOAD.replace("value: one}, {name: B, value: b}", "value: two}"))
        assert kubectl("apply", "-f", str(manifest)).splitlines() == [
            "serviceaccount/weave-net unchanged",
            "daemonset.apps/weave-net configured",
        ]
        containers = yaml.safe_load(kubectl("get", "daemonset", "-n", "kube-system", "weave-net", "-o", "yaml"))
        assert containers["metadata"]["generation"] == 2
        assert containers["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "two"}]
        pod = served.do(lambda server: server.plant(_running("weave-net-x1")))
        shown = kubectl("get", "pods", "-n", "kube-system", "-l", "name=weave-net").splitlines()
        assert [line.split()[:4] for line in shown] == [
            ["NAME", "READY", "STATUS", "RESTARTS"],
            ["weave-net-x1", "2/2", "Running", "0"],
        ]
        served.do(lambda server: server.plant(_said("weave-net-x1", pod["metadata"]["uid"])))
        described = kubectl("describe", "pod", "-n", "kube-system", "weave-net-x1")
        assert "Warning  Conflict" in described
        assert "tunrouter" in described.rpartition("Events:")[2]
        kubectl("delete", "pod", "-n", "kube-system", "weave-net-x1", "--grace-period=0", "--force")
        assert kubectl("delete", "-f", str(manifest)).count("deleted") == 2
        assert stored(served, "DaemonSet") == stored(served, "Pod") == {}


def _running(name: str) -> dict[str, Any]:
    containers = [{"name": each, "image": "tunrouter/tunrouter"} for each in ("weave", "weave-npc")]
    ready = [{**each, "imageID": "x", "ready": True, "restartCount": 0} for each in containers]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"name": "weave-net"}},
        "spec": {"nodeName": "n1", "containers": containers},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": ready},
    }


def _said(name: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.1", "namespace": "kube-system"},
        "involvedObject": {"kind": "Pod", "namespace": "kube-system", "name": name, "uid": uid},
        "reason": "Conflict",
        "message": "what is wrong; what to do",
        "type": "Warning",
        "source": {"component": "tunrouter"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }


def test_as_a_program_it_is_told_what_to_do(tmp_path: Path) -> None:
    control = tmp_path / "control"
    command = [sys.executable, "-m", "tests.kube.apiserver", "--control", str(control), "--mount", str(tmp_path / "sa")]
    with (tmp_path / "url").open("w") as printed:
        process = subprocess.Popen(command, stdout=printed)
    try:
        url = wait_until("its URL", lambda: (tmp_path / "url").read_text().strip(), 20)
        remote = Remote(control)
        wait_until("it listens to us", control.exists, 10)
        remote.do("plant", thing=node("n1"))
        assert remote.do("get", api_version="v1", kind="Node", name="n1")["metadata"]["uid"]
        assert _asked(url)["items"][0]["metadata"]["name"] == "n1"
        remote.do("fault", mode="error", code=503, nodes=["n2"])
        assert _asked(url, "tunrouter/1 (n2)")["reason"] == "InternalError"
        assert len(_asked(url, "tunrouter/1 (n1)")["items"]) == 1
        remote.do("clear")
        remote.do("remove", api_version="v1", kind="Node", name="n1")
        assert remote.do("all", api_version="v1", kind="Node") == []
        assert [entry["code"] for entry in remote.do("journal")] == [200, 503, 200]
        with pytest.raises(AssertionError, match="no-such-mode"):
            remote.do("fault", mode="no-such-mode")
        begun = time.monotonic()
    finally:
        process.terminate()
        process.wait(10)
    assert process.returncode == 0
    assert time.monotonic() - begun < 5


def _asked(url: str, agent: str = "test") -> dict[str, Any]:
    host, _, port = url.rpartition("/")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/api/v1/nodes", headers={"User-Agent": agent})
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer
