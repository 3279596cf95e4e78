"""The manifest applied to a cluster of two machines, as its users apply it, and what they then see and do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial

import pytest

from tests.kube.cluster import Cluster, cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(400), pytest.mark.alone]

STATUS = ("/home/weave/weave", "--local", "status")
FOREIGN = re.compile(r"python|iptables|nft|xtables|perl|(^|/)sh$|bash")
"""What hosts need not have."""
MASK = {"DAC_OVERRIDE": 1, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21}


@pytest.fixture(scope="module")
def up() -> Iterator[Cluster]:
    with cluster(2) as made:
        made.start()
        made.apply()
        yield made


@pytest.fixture(scope="module")
def serving(up: Cluster) -> Cluster:
    up.wait_serving()
    for kubelet in up.kubelets:
        up.wait(f"{kubelet.machine} is Ready", partial(up.node_ready, kubelet))
    return up


def test_nodes_are_ready_soon_and_pods_have_addresses(up: Cluster) -> None:
    """Ten seconds from the start of the agent's container, and two more."""
    one = up.kubelets[0]
    up.wait("the agent's container is started", lambda: one.machine.name in up.agents() and _started(up), 30)
    began = datetime.fromisoformat(_started(up)).timestamp()
    up.wait(f"{one.machine} is Ready", lambda: up.node_ready(one), 30)
    assert time.time() - began < 10
    began = time.monotonic()
    up.bring("first", one)
    up.address("first")
    assert time.monotonic() - began < 2
    up.remove("first")


def test_the_commands_of_the_documentation_work_word_for_word(serving: Cluster) -> None:
    serving.wait("both are 2/2 Running", lambda: _pods(serving).count("2/2") == 2, 20)
    assert _pods(serving).count("Running") == 2
    serving.wait("the DaemonSet's status follows", lambda: _daemonset(serving) == ["weave-net", "2", "2", "2"], 10)
    pod = serving.agents()["host1"]["metadata"]["name"]
    assert "ready: pods of 10." in serving.kubectl(f"logs -n kube-system {pod} weave")
    told = serving.kubectl("logs -n kube-system -l name=weave-net")
    assert len(re.findall(r"pods of 10\.[\d.]+/24", told)) >= 2
    assert serving.kubectl("get nodes").count(" Ready ") == 2


def _daemonset(cluster: Cluster) -> list[str]:
    """Name, desired, current, ready."""
    return cluster.kubectl("get daemonset -n kube-system").splitlines()[1].split()[:4]


def test_status_tells_and_exits_non_zero_while_nothing_is_served(serving: Cluster) -> None:
    one = serving.kubelets[0]
    code, text = serving.exec(one, *STATUS)
    assert code == 0
    assert "Service: router" in text
    assert "Status: ready" in text
    assert serving.kubelets[0].execute(_agent(serving), "weave-npc", *STATUS)[0] == 0, "both containers have its socket"
    elsewhere = ("env", "TUNROUTER_RUN_DIR=/run/nowhere", *STATUS)
    assert serving.kubelets[0].execute(_agent(serving), "weave", *elsewhere)[0] != 0, "no agent answers there"


def test_pods_of_two_nodes_reach_each_other(serving: Cluster) -> None:
    one, two = serving.kubelets
    serving.bring("a", one)
    serving.bring("b", two)
    a, b = serving.address("a"), serving.address("b")
    assert serving.pings("a", b)
    assert serving.pings("b", a)
    serving.remove("a", "b")


def test_hosts_have_nothing_but_a_runtime_and_what_the_image_brought(serving: Cluster) -> None:
    for machine in serving.machines:
        found = {str(path.relative_to(machine.root)) for path in machine.executables()}
        assert [name for name in found if FOREIGN.search(name) and not name.startswith("opt/cni/bin/")] == []
        brought = {name.removeprefix("opt/cni/bin/") for name in found if name.startswith("opt/cni/bin/")}
        assert brought == {"tunrouter-cni", "portmap", "bandwidth", "loopback"}
        assert (machine.root / "opt/cni/bin/tunrouter-cni").read_bytes().startswith(b"\x7fELF")
        assert (machine.root / "etc/cni/net.d/05-tunrouter.conflist").exists()
        # No file of the host's is executed by a shell or an interpreter that the host does not have.
        assert not [path for path in machine.executables() if path.read_bytes()[:2] == b"#!"]


def test_the_agent_has_few_rights(serving: Cluster) -> None:
    status = serving.exec(serving.kubelets[0], "cat", "/proc/1/status")[1]
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == sum(1 << bit for bit in MASK.values())
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    code, said = serving.exec(serving.kubelets[0], "touch", "/etc/written")
    assert code != 0
    assert "Read-only file system" in said


def test_without_an_agent_a_pod_says_so_in_a_sentence_and_runs_when_there_is_one(serving: Cluster) -> None:
    """The plugin waits first, for agents are replaced."""
    one = serving.kubelets[0]
    serving.kubectl("delete daemonset -n kube-system weave-net")
    serving.wait("the agents are gone", lambda: not serving.agents() and not _pods(serving), 30)
    serving.bring("stuck", one)
    serving.wait("the pod says why", lambda: _event(serving, "stuck"), 25)
    described = serving.kubectl("describe pod stuck")
    (line,) = re.findall(r"FailedCreatePodSandBox.*", described)
    assert "no agent answers on /run/tunrouter/tunrouter.sock" in line
    wanted = "get pods -n kube-system -l name=weave-net --field-selector spec.nodeName=host1"
    assert line.endswith(f"; see: kubectl {wanted}")
    assert "No resources found" in serving.kubectl(wanted, check=False)
    serving.apply()
    serving.address("stuck", 40)
    serving.remove("stuck")


def _pods(up: Cluster) -> str:
    return up.kubectl("get pods -n kube-system -l name=weave-net")


def _agent(up: Cluster) -> str:
    return str(up.agents()["host1"]["metadata"]["name"])


def _started(up: Cluster) -> str:
    statuses = up.agents()["host1"].get("status", {}).get("containerStatuses") or ()
    running = [each["state"].get("running") for each in statuses if each["name"] == "weave"]
    return str(running[0]["startedAt"]) if running and running[0] else ""


def _event(up: Cluster, pod: str) -> list[str]:
    return [each["message"] for each in up.events(pod) if each["reason"] == "FailedCreatePodSandBox"]
