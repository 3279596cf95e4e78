"""What Weave Net's users, a kubelet, a scheduler and an API server find in the manifest, and that it grants no more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.rendered import BASE, OVERLAYS, ROOT, Tree, container, objects, pod, the
from tunrouter.config import resolve
from tunrouter.config.values import listening
from tunrouter.edge import sysctl
from tunrouter.edge.kube import objects as kube

NAMES = ["weave", "weave-npc"]
HOST_PATHS = {
    "/var/lib/tunrouter": "identity, blocks and addresses over restarts",
    "/run/tunrouter": "the sockets that the plugin and the agent ask",
    "/opt/cni/bin": "the plugin",
    "/etc/cni/net.d": "the network",
    "/run/netns": "the pods' namespaces",
    "/proc/sys/net": "the switches of the network",
    "/dev/net/tun": "the tunnel",
    "/run/xtables.lock": "iptables-legacy's lock",
}
"""All that is seen of the host, and why."""
VERBS = ("get", "list", "create", "patch", "update", "delete")
CALLED = {"replace": "update"}
"""What the API calls a verb of the client's."""
ENFORCED = [folder for folder in [BASE, *OVERLAYS] if folder.name not in ("uninstall", "no-npc")]


def test_the_users_commands_find_their_pods() -> None:
    daemonset = the("DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert daemonset["metadata"]["name"] == "weave-net"
    assert daemonset["spec"]["selector"] == {"matchLabels": {"name": "weave-net"}}
    assert labels["name"] == "weave-net"
    annotations = daemonset["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"kubectl.kubernetes.io/default-container": "weave"}


@pytest.mark.parametrize("folder", ENFORCED, ids=lambda folder: folder.name)
def test_two_containers_and_the_agent_is_the_first(folder: Path) -> None:
    assert [one["name"] for one in pod(folder)["containers"]] == NAMES
    assert "initContainers" not in pod(folder)


def test_everything_is_called_weave_net_and_says_so() -> None:
    for one in objects(BASE):
        blocks = one["kind"] == "Namespace"
        assert one["metadata"]["name"] == ("weave-net-blocks" if blocks else "weave-net")
        assert one["metadata"]["labels"]["name"] == "weave-net"
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tunrouter"
    assert objects(BASE)[0]["kind"] == "Namespace", "what is inside comes after it"


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_no_container_that_stays_has_more_rights_than_it_needs(folder: Path) -> None:
    daemonsets = [one for one in objects(folder) if one["kind"] == "DaemonSet"]
    for spec in (one["spec"]["template"]["spec"] for one in daemonsets):
        assert not spec.get("hostPID")
        assert not spec.get("hostIPC")
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in spec["containers"] + spec.get("initContainers", []):
            rights = one["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            if folder.name == "privileged" and one["name"] == "weave":
                assert rights == {"privileged": True, "readOnlyRootFilesystem": True}
                continue
            assert "privileged" not in rights
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"]["drop"] == ["ALL"]
            # The API server refuses CAP_SYS_ADMIN, by that name, beside allowPrivilegeEscalation: false.
            assert not any(name.startswith("CAP_") for name in rights["capabilities"].get("add", []))


def test_capabilities_are_those_that_the_documentation_explains() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    added = {name: container(name)["securityContext"]["capabilities"]["add"] for name in NAMES}
    assert added == {"weave": ["DAC_OVERRIDE", "NET_ADMIN", "NET_RAW", "SYS_ADMIN"], "weave-npc": ["NET_ADMIN"]}
    for name, capabilities in added.items():
        for capability in capabilities:
            assert re.search(rf"^\| `{name}` \| {capability} \|", text, re.MULTILINE)


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_of_the_host_only_what_is_needed_is_seen_and_all_of_it_is_used(folder: Path) -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    for spec in (one["spec"]["template"]["spec"] for one in objects(folder) if one["kind"] == "DaemonSet"):
        paths = {one["hostPath"]["path"]: one["hostPath"]["type"] for one in spec["volumes"] if "hostPath" in one}
        if folder.name == "read-only-hosts":
            assert paths.keys() - HOST_PATHS.keys() == {"/var/lib/cni/bin", "/var/lib/cni/net.d"}
        else:
            assert paths.keys() <= HOST_PATHS.keys()
        assert all(type_ for type_ in paths.values()), "a missing path is said, or made"
        assert all(f"`{path}`" in text for path in HOST_PATHS)
        mounted = [
            mount
            for one in spec["containers"] + spec.get("initContainers", [])
            for mount in one.get("volumeMounts", [])
        ]
        assert {one["name"] for one in mounted} == {one["name"] for one in spec["volumes"]}
    assert {one["hostPath"]["path"] for one in pod()["volumes"] if "hostPath" in one} == HOST_PATHS.keys()


def test_mounts_are_where_the_program_looks() -> None:
    config = agent()
    at = {one["name"]: one for one in container("weave")["volumeMounts"]}
    assert at["state"]["mountPath"] == config.state_dir
    assert at["run"]["mountPath"] == config.run_dir
    assert at["cni-bin"]["mountPath"] == config.cni_bin_dir
    assert at["cni-conf"]["mountPath"] == config.cni_conf_dir
    # runc mounts nothing inside /proc.
    assert at["sysctls"]["mountPath"] == f"{sysctl.HOSTS}/net"
    # Namespaces of pods that come later are mounts that are made later.
    propagated = {"mountPropagation": "HostToContainer", "readOnly": True}
    assert at["netns"] == {"name": "netns", "mountPath": "/run/netns"} | propagated
    assert at["password"]["mountPath"] == environment("weave")["CREDENTIALS_DIRECTORY"]
    assert at["password"]["readOnly"] is True


def test_both_meet_where_the_policy_process_answers() -> None:
    for options in ({}, {"TUNROUTER_RUN_DIR": "/srv/run"}):
        there = configured(container("weave-npc"), options)
        assert there.npc_socket == agent(**options).npc_socket
    assert container("weave-npc")["volumeMounts"] == [{"name": "run", "mountPath": agent().run_dir}]


def environment(name: str) -> dict[str, str]:
    return variables(container(name))


def variables(one: Tree) -> dict[str, str]:
    return {each["name"]: each.get("value", "node-a") for each in one.get("env", [])}


def agent(**more: str) -> Any:
    return configured(container("weave"), more)


def configured(one: Tree, more: dict[str, str]) -> Any:
    """`more` is in the ConfigMap, over which `env` wins."""

    def nothing(path: Path) -> Any:
        raise FileNotFoundError(path)

    return resolve({}, more | variables(one), nothing, hostname="a-host-of-another-name").config


def test_the_agent_is_told_its_node_and_that_it_is_one_of_a_cluster() -> None:
    (name,) = (one for one in container("weave")["env"] if one["name"] == "TUNROUTER_NAME")
    assert name["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    config = agent()
    assert (config.name, config.kubernetes, config.secrets) == ("node-a", True, ())
    assert container("weave")["command"] == ["tunrouter", "up"]
    assert container("weave-npc")["command"] == ["tunrouter", "npc"]


def test_an_agent_expects_the_policy_process_where_there_is_one() -> None:
    for folder in [BASE, *OVERLAYS]:
        if folder.name != "uninstall":
            there = {one["name"] for one in pod(folder)["containers"]}
            assert configured(container("weave", folder), {}).expect_npc == ("weave-npc" in there), folder.name


def test_the_secret_and_the_options_may_be_missing() -> None:
    (secret,) = (one["secret"] for one in pod()["volumes"] if "secret" in one)
    assert (secret["secretName"], secret["optional"]) == ("weave-passwd", True)
    assert secret["items"] == [{"key": "weave-passwd", "path": "password"}]
    for name in NAMES:
        assert container(name)["envFrom"] == [{"configMapRef": {"name": "weave-net", "optional": True}}]


def test_an_option_of_the_configmap_is_not_hidden_by_a_variable() -> None:
    """`env` wins over `envFrom`: only what the manifest itself depends on stands there."""
    fixed = {"TUNROUTER_NAME", "TUNROUTER_KUBERNETES", "TUNROUTER_HEALTH_ADDR", "CREDENTIALS_DIRECTORY"}
    assert environment("weave").keys() == fixed
    assert environment("weave-npc").keys() == {"TUNROUTER_NAME", "TUNROUTER_KUBERNETES"}
    assert pod()["enableServiceLinks"] is False, "a Service called tunrouter would be TUNROUTER_PORT"


def test_probes_ask_where_health_is_served() -> None:
    host, port = listening(agent().health_addr)
    asked = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for name, number in (("weave", port), ("weave-npc", 6781)):
        for probe, path in asked.items():
            assert container(name)[probe]["httpGet"] == {"host": host, "port": number, "path": path}
            # The server says that the loop stands still after two seconds.
            assert container(name)[probe]["timeoutSeconds"] > 2
        alive = container(name)["livenessProbe"]
        assert alive["periodSeconds"] * alive["failureThreshold"] >= 60


def test_metrics_are_where_the_port_of_that_name_is() -> None:
    (port,) = container("weave")["ports"]
    assert (port["name"], port["containerPort"]) == ("metrics", listening(agent().metrics_addr)[1])
    (folder,) = (one for one in OVERLAYS if one.name == "monitoring")
    monitor = the("PodMonitor", folder)
    assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    assert monitor["spec"]["selector"]["matchLabels"] == {"name": "weave-net"}


def test_it_runs_on_every_linux_node_before_anything_else_can() -> None:
    spec = pod()
    assert spec["hostNetwork"] is True
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [
        {"effect": effect, "operator": "Exists"} for effect in ("NoSchedule", "NoExecute")
    ]  # fmt: skip
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]
    # The cluster's own DNS needs this network: nothing that starts it may need that DNS.
    assert spec["dnsPolicy"] == "Default"


def test_nodes_are_renewed_a_few_at_a_time_and_never_throttled() -> None:
    spec = the("DaemonSet")["spec"]
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    assert spec["minReadySeconds"] <= 5
    assert pod()["terminationGracePeriodSeconds"] <= 10
    for name in NAMES:
        assert container(name)["resources"].keys() == {"requests"}
        assert container(name)["resources"]["requests"].keys() == {"cpu", "memory"}


def granted(*kinds: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for one in objects(BASE)
        for rule in (one.get("rules", []) if one["kind"] in kinds else [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used() -> set[tuple[str, str, str]]:
    """What the program asks the API server for, by its source."""
    texts = [path.read_text() for path in (ROOT / "tunrouter").rglob("*.py")]
    trees = [ast.parse(text) for text in texts if "tunrouter.edge.kube" in text]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {found for call in calls for found in asked(call)}


def asked(call: ast.Call) -> Iterator[tuple[str, str, str]]:
    """`client.VERB(RESOURCE, …)`, and `Reflector(client, RESOURCE, …)`, which lists and watches."""
    reflects = isinstance(call.func, ast.Name) and call.func.id == "Reflector"
    verbs = ("list", "watch") if reflects else (getattr(call.func, "attr", ""),)
    named = call.args[int(reflects) : int(reflects) + 1]
    resource = getattr(kube, named[0].id, None) if named and isinstance(named[0], ast.Name) else None
    if isinstance(resource, kube.Resource) and {*verbs} <= {*VERBS, *CALLED, "watch"}:
        parts = [
            one.value.value for one in call.keywords if one.arg == "subresource" and isinstance(one.value, ast.Constant)
        ]
        for verb in verbs:
            yield (
                resource.version.rpartition("/")[0],
                "/".join([resource.plural, *map(str, parts)]),
                CALLED.get(verb, verb),
            )


def test_every_right_is_used_and_every_use_has_its_right() -> None:
    found = used()
    assert ("", "nodes/status", "patch") in found
    assert granted("ClusterRole", "Role") == found


def test_what_is_asked_for_by_name_is_granted_by_name() -> None:
    named = {
        (resource, name): rule["verbs"]
        for one in objects(BASE)
        for rule in one.get("rules", [])
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
    }
    assert named["configmaps", "kube-proxy"] == named["configmaps", "kubeadm-config"] == ["get"]
    assert named["namespaces", "kube-system"] == ["get"]
    assert ("configmaps", "*") not in named
    leases = {one["metadata"].get("namespace") for one in objects(BASE) if "leases" in str(one.get("rules"))}
    assert leases == {"weave-net-blocks"}


def test_every_role_is_bound_to_the_one_account() -> None:
    account = {"kind": "ServiceAccount", "name": "weave-net", "namespace": "kube-system"}
    roles = {(one["kind"], one["metadata"].get("namespace")) for one in objects(BASE) if "rules" in one}
    bound = set()
    for one in objects(BASE):
        if "roleRef" in one:
            assert one["subjects"] == [account]
            assert one["roleRef"]["name"] == "weave-net"
            bound.add((one["roleRef"]["kind"], one["metadata"].get("namespace")))
    assert bound == roles
    assert pod()["serviceAccountName"] == account["name"]


def test_the_uninstaller_waits_for_the_agent_to_be_gone_and_asks_nobody() -> None:
    (folder,) = (one for one in OVERLAYS if one.name == "uninstall")
    (daemonset,) = objects(folder)
    spec = daemonset["spec"]["template"]["spec"]
    (reset,) = spec["initContainers"]
    # Without --force it refuses beside a running agent, and the kubelet tries it again.
    assert reset["command"] == ["tunrouter", "reset", "--purge"]
    agents, its = (one["securityContext"]["capabilities"]["add"] for one in (container("weave"), reset))
    assert its == [name for name in agents if name != "SYS_ADMIN"], "it writes where the agent did"
    assert spec["automountServiceAccountToken"] is False
    assert daemonset["metadata"]["name"] != "weave-net"
    assert daemonset["spec"]["selector"]["matchLabels"] == {"name": "weave-net-reset"}
    here = {one["name"]: one["hostPath"]["path"] for one in pod()["volumes"] if "hostPath" in one}
    there = {one["name"]: one["hostPath"]["path"] for one in spec["volumes"] if "hostPath" in one}
    assert there.items() <= here.items()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"WEAVE_CNI_PLUGIN_DIR": "/srv/bin"},
        {"EXTRA_ARGS": "--weave-bridge=wv0 --ipalloc-range=10.50.0.0/16 --port=6793"},
        {"TUNROUTER_STATE_DIR": "/srv/state", "TUNROUTER_RUN_DIR": "/srv/run", "TUNROUTER_CNI_CONF_DIR": "/srv/net.d"},
    ],
)
def test_the_uninstaller_takes_away_what_the_agent_made_by_the_same_options(options: dict[str, str]) -> None:
    (folder,) = (one for one in OVERLAYS if one.name == "uninstall")
    (reset,) = pod(folder)["initContainers"]
    up, down = configured(container("weave"), options), configured(reset, options)
    for name in ("name", "kubernetes", "bridge", "tun", "port", "state_dir", "run_dir", "socket", "notes"):
        assert getattr(down, name) == getattr(up, name), name
    assert (down.cni_bin_dir, down.cni_conf_dir) == (up.cni_bin_dir, up.cni_conf_dir)
    assert reset["envFrom"] == container("weave")["envFrom"]
