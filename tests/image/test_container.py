"""The image under podman: as anybody with nothing, and as the agent of a host with just what that takes."""

from __future__ import annotations

import pytest

from tests.image.archive import NAME, Archive
from tests.image.conftest import BUILD_SECONDS
from tests.image.contained import Contained
from tests.runtimes.containerd import Containerd
from tests.runtimes.runtime import fetch
from tunrouter import __version__
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.errors import HostError

pytestmark = [pytest.mark.root, pytest.mark.timeout(BUILD_SECONDS)]

NOBODY = ("--user=65534:65534",)
IMPORTS = """
import importlib, pkgutil, tunrouter
names = [each.name for each in pkgutil.walk_packages(tunrouter.__path__, "tunrouter.")]
for name in names:
    # The one makes the kernel, where a compiler is.
    if name != "tunrouter.dataplane.build" and not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


def test_anybody_may_ask_it_for_its_version(contained: Contained) -> None:
    assert contained.once("version", options=NOBODY).strip() == f"tunrouter {__version__}"
    assert contained.once("genkey", options=NOBODY).startswith("trk1-")


@pytest.mark.parametrize("command", ["/home/weave/weave", "weave"])
def test_what_users_of_weave_type_is_understood(contained: Contained, command: str) -> None:
    named = (f"--entrypoint={command}", *NOBODY)
    assert "Usage: tunrouter" in contained.once("--local", "--help", options=named)
    assert "no agent answers on /run/tunrouter/tunrouter.sock" in contained.once(
        "--local", "status", options=named, check=False
    )


def test_all_its_modules_are_there_and_none_is_written(contained: Contained) -> None:
    unwritable = ("run", "--rm", "--pull=never", "--network=none", "--cap-drop=all", "--read-only", *NOBODY)
    count = contained.podman(*unwritable, "--entrypoint=/opt/tunrouter/bin/python", NAME, "-c", IMPORTS)
    assert int(count) > 200
    # One that could be written.
    name = "imports"
    writable = ("run", f"--name={name}", "--pull=never", "--network=none", "--entrypoint=/opt/tunrouter/bin/python")
    contained.podman(*writable, NAME, "-c", IMPORTS)
    changed = contained.podman("diff", name).splitlines()
    contained.podman("rm", name)
    # A runtime's own, and Python's question whether there is a place for temporary files.
    assert {*changed} <= {"C /etc", "A /etc/mtab", "C /run", "A /run/.containerenv", "C /tmp"}


def test_an_agent_in_a_container_gives_a_host_its_network(contained: Contained) -> None:
    near, far = contained.host, contained.neighbour
    with contained.agent() as identity:
        pod = contained.serve("from a host with an agent in a container")
        wait_until(f"{pod} listens", lambda: pod.fetch("127.0.0.1"), 10)
        other = far.add_pod("other")
        assert fetch(far, pod.address) == "from a host with an agent in a container"
        assert pod.ping(other.address)
        assert "ok    firewall" in contained.podman("exec", identity, "tunrouter", "doctor", check=False)
        changed = contained.podman("diff", identity).splitlines()
        pod.remove()
        far.agent.command("detach", str(other.namespace.path))
    # What it was given, and nothing that it wrote beside.
    given = {path.partition(":")[0] for path in contained.mounts}
    assert {line.split()[1] for line in changed if line.startswith("A")} <= {
        *given, "/host", "/host/proc", "/host/proc/sys", "/run/.containerenv", "/dev/net",
    }  # fmt: skip
    assert near.agent.command("status", check=False).returncode == 3


@pytest.mark.soak
@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("SYS_ADMIN", "CAP_SYS_ADMIN"),
        ("/host/proc/sys/net", "in a container mount the host's /proc/sys/net"),
        ("/run/netns:ro,rslave", "cannot open the network namespace"),
    ],
)
def test_what_pods_miss_is_said(contained: Contained, missing: str, why: str) -> None:
    with contained.agent(without=(missing,)), pytest.raises(HostError, match=why):
        contained.launch("sleep", "infinity")


@pytest.mark.soak
def test_containerd_knows_it_by_the_manifests_name(archive: Archive) -> None:
    with Lab(hosts=1, offloads="off") as lab, Containerd(lab.hosts[0]) as containerd:
        ctr = ("ctr", "--address", str(containerd.directory / "containerd.sock"), "--namespace", "k8s.io", "images")
        containerd.cell.run(*ctr, "import", str(archive.path))
        assert NAME in containerd.cell.run(*ctr, "list", "--quiet").stdout.splitlines()


@pytest.mark.soak
def test_what_the_agent_misses_is_said(contained: Contained) -> None:
    with pytest.raises(HostError, match="nftables: Operation not permitted"), contained.agent(without=("NET_ADMIN",)):
        pass
    with pytest.raises(HostError, match="/dev/net/tun"), contained.agent(without=("/dev/net/tun",)):
        pass


@pytest.mark.soak
@pytest.mark.parametrize("missing", ["", "NET_RAW", "/run/xtables.lock"])
def test_legacy_rules_take_raw_sockets_and_the_lock(contained: Contained, missing: str) -> None:
    host = contained.host
    host.namespace.run("iptables-legacy", "-P", "FORWARD", "DROP")
    try:
        with contained.agent(without=(missing,)) as identity:
            pod = contained.serve("through")
            reached = contained.neighbour.namespace.run("ping", "-c1", "-W1", pod.address, check=False).returncode == 0
            assert reached is not bool(missing)
            if missing:
                assert "iptables-legacy" in contained.podman("exec", identity, "tunrouter", "doctor", check=False)
            pod.remove()
    finally:
        for change in (("-F", "FORWARD"), ("-P", "FORWARD", "ACCEPT")):
            host.namespace.run("iptables-legacy", *change)
