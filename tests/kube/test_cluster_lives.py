"""What a cluster lives through: updates under traffic, a node that loses its power, an API server that is not there."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.e2e.test_healing import Pings
from tests.kube.cluster import Cluster, cluster, proxy
from tests.kube.kubelet import Kubelet
from tunrouter.bench.traffic import Stream

pytestmark = [pytest.mark.root, pytest.mark.soak, pytest.mark.timeout(400)]

STATUS = ("/home/weave/weave", "--local", "status")
MIB = 1 << 20
SECONDS = 75
"""Of a stream, in which everything has to have happened."""
GAP_SECONDS = 3.0
OPTIONS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: weave-net, namespace: kube-system}
data: {IPALLOC_RANGE: 10.32.0.0/29}
"""
ROOM = 5
"""Pods in a block of eight addresses."""


@pytest.fixture(scope="module")
def up() -> Iterator[Cluster]:
    with cluster(2) as made:
        made.start()
        made.apply()
        made.wait_serving()
        for machine in made.machines:
            machine.run("/usr/bin/ctr", "-n", "k8s.io", "images", "tag", IMAGE, NEXT)
        yield made


IMAGE = "docker.io/tunrouter/tunrouter:0.1.0"
NEXT = "docker.io/tunrouter/tunrouter:next"


def test_an_update_of_the_image_breaks_no_connection(
    up: Cluster, record_property: Callable[[str, object], None]
) -> None:
    one, two = up.kubelets
    for name, kubelet in (("a", one), ("near", one), ("b", two)):
        up.bring(name, kubelet)
    a, near, b = map(up.place, ("a", "near", "b"))
    up.wait("all agents are available", lambda: _available(up, 2), 40)
    with (
        Stream(a.namespace, b.namespace, b.address, SECONDS * MIB, rate=MIB) as there,
        Stream(b.namespace, near.namespace, near.address, SECONDS * MIB, rate=MIB) as back,
        Pings(a, b) as far,  # type: ignore[arg-type]
        Pings(a, near) as local,  # type: ignore[arg-type]
        ThreadPoolExecutor() as pool,
    ):
        streams = [pool.submit(stream.finish) for stream in (there, back)]
        up.kubectl(f"set image -n kube-system daemonset/weave-net weave={NEXT} weave-npc={NEXT}")
        up.wait("all are of the next image", lambda: _updated(up, NEXT), SECONDS - 10)
        assert not any(stream.done() for stream in streams)
        results = [stream.result() for stream in streams]
    pauses = {"far": far.gap, "local": local.gap, "tcp": max(result.longest_pause for result in results)}
    for what, seconds in pauses.items():
        record_property(what, seconds)
    assert far.gap <= GAP_SECONDS
    assert local.gap < 0.5
    up.remove("a", "near", "b")


def test_a_pod_that_comes_while_the_agent_is_replaced_waits_for_it(up: Cluster) -> None:
    one = up.kubelets[0]
    before = up.agents()[one.machine.name]
    up.kubectl(f"delete pod -n kube-system --wait=false {before['metadata']['name']}")
    up.wait("no agent answers", lambda: not _answers(one), 10)
    up.bring("meanwhile", one)
    up.address("meanwhile", 15)
    assert up.agents()[one.machine.name]["metadata"]["uid"] != before["metadata"]["uid"]
    assert [each["message"] for each in up.events("meanwhile") if each["type"] == "Warning"] == []
    up.remove("meanwhile")


def test_a_node_that_boots_while_the_api_is_away_has_its_pods_back(up: Cluster) -> None:
    one, two = up.kubelets
    up.bring("a", one)
    up.bring("b", two)
    before, b = up.address("a"), up.address("b")
    assert up.pings("a", b)
    sandbox = one.worker("a").sandbox
    up.scene.control.do("down")
    try:
        one.reboot(lambda: proxy(one.machine.host))
        up.wait("the agent answers", lambda: _status(one)[0] == 0, 40)
        up.wait("the pod is back", lambda: one.worker("a").sandbox not in ("", sandbox) and _runs(one, "a"), 30)
        assert one.worker("a").address == before
        up.wait("it reaches the other node", lambda: _pings(one, "a", b), 15)
        assert "out of touch with the Kubernetes API" in _status(one)[1]
    finally:
        up.scene.control.do("up")
    up.wait("the cluster sees it", lambda: up.pod("a")["status"].get("podIP") == before and up.agent_serves(one), 20)
    up.wait("it is in touch", lambda: "out of touch" not in _status(one)[1], 20)
    up.remove("a", "b")


def test_at_the_first_boot_nobody_needs_the_api_server_to_go_on_waiting() -> None:
    """kube-proxy is late, and so the address of the API server leads nowhere."""
    with cluster(1) as made:
        (one,) = made.kubelets
        made.start(proxied=False)
        made.apply()
        made.wait("the agent answers", lambda: "out of touch with the Kubernetes API" in _status(one, made)[1], 30)
        wanted = "Status: the Kubernetes API does not answer: https://10.96.0.1:443 did not accept within 3 s"
        made.wait("status says why", lambda: wanted in _status(one, made)[1], 15)
        assert _status(one, made)[0] != 0
        made.wait("the log says so", lambda: "10.96.0.1" in made.kubectl("logs -n kube-system -l name=weave-net"), 15)
        time.sleep(20)  # longer than anything has patience
        pod = made.agents()["host1"]
        assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0, 0]
        assert not made.node_ready(one)
        proxy(one.machine.host)
        made.wait("the node is Ready", lambda: made.node_ready(one), 20)
        assert _status(one, made)[0] == 0


def _available(up: Cluster, count: int) -> bool:
    return up.kubectl("get daemonset -n kube-system weave-net").splitlines()[1].split()[5] == str(count)


def _updated(up: Cluster, image: str) -> bool:
    agents = up.agents().values()
    current = [agent for agent in agents if agent["spec"]["containers"][0]["image"] == image]
    return len(current) == len(up.kubelets) and _available(up, len(up.kubelets))


def _status(kubelet: Kubelet, up: Cluster | None = None) -> tuple[int, str]:
    """Without asking the API server which pod it is."""
    for worker in kubelet.workers:
        if "weave" in worker.containers and worker.containers["weave"].running:
            return kubelet.execute(worker.pod["metadata"]["name"], "weave", *STATUS)
    return 1, ""


def _answers(kubelet: Kubelet) -> bool:
    """Whether the plugin would find an agent now."""
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(str(kubelet.machine.inside("/run/tunrouter/tunrouter.sock")))
        except OSError:
            return False
    return True


def _runs(kubelet: Kubelet, pod: str) -> bool:
    return kubelet.worker(pod).containers["only"].running


def _pings(kubelet: Kubelet, pod: str, address: str) -> bool:
    said = kubelet.execute(pod, "only", "ping", "-n", "-c", "1", "-W", "2", address)[1]
    return "1 packets received" in said


def test_when_no_address_is_left_a_pod_says_so_in_a_sentence_and_comes_when_one_is() -> None:
    """A range of one small block; the options are those of the ConfigMap."""
    with cluster(1) as made:
        (one,) = made.kubelets
        made.start()
        made.kubectl("apply -f -", stdin=OPTIONS)
        made.apply()
        made.wait("the node is Ready", partial(made.node_ready, one), 30)
        names = [f"pod{number}" for number in range(ROOM)]
        for name in names:
            made.bring(name, one)
        assert {made.address(name) for name in names} == {f"10.32.0.{2 + number}" for number in range(ROOM)}
        made.bring("stuck", one)
        made.wait("the pod says why", partial(_said, made, "stuck"), 25)
        (line,) = set(re.findall(r"FailedCreatePodSandBox.*", made.kubectl("describe pod stuck")))
        agents = "kubectl get pods -n kube-system -l name=weave-net --field-selector spec.nodeName=host1"
        within = f"kubectl exec -n kube-system $({agents} -o name) -c weave -- tunrouter status ipam"
        assert re.search(r"no address is free: .*; see: ", line), line
        assert line.endswith(within)
        assert made.kubectl(f"{agents} -o name".removeprefix("kubectl ")).startswith("pod/weave-net-")
        assert "Addresses: 5 used, 0 free" in made.exec(one, "tunrouter", "status", "ipam")[1]
        code, text = _status(one)
        assert code != 0
        assert "no address is free" in text, text
        made.remove(names[0])
        made.address("stuck", 90)  # an address rests for a minute


def _said(up: Cluster, pod: str) -> bool:
    return any(each["reason"] == "FailedCreatePodSandBox" for each in up.events(pod))
