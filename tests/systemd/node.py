"""What tests ask of the agent of a booted machine, and of its pods."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.systemd.machine import Machine
from tunrouter.bench.namespaces import wait_until


def enable(machine: Machine) -> None:
    """As after `systemctl enable --now`, and with a block of addresses."""
    machine.sh("[ -e /etc/tunrouter/password ] || (umask 077; tunrouter genkey >/etc/tunrouter/password)")
    machine.run("systemctl", "enable", "--now", "--quiet", "tunrouter")
    wait_until("a block of addresses", lambda: snapshot(machine)["block"], 20)


def snapshot(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run("tunrouter", "status", "-o", "json").stdout)
    return found


def make_namespace(machine: Machine, name: str) -> None:
    machine.sh(f"ip netns list | grep -qw {name} || ip netns add {name}")


def attach(machine: Machine, name: str, *arguments: str) -> str:
    make_namespace(machine, name)
    return machine.run("tunrouter", "attach", name, *arguments).stdout.strip()


def forget(machine: Machine, *names: str) -> None:
    for name in names:
        machine.run("tunrouter", "detach", name)
        machine.run("ip", "netns", "del", name)


def cni(machine: Machine, verb: str, container: str, namespace: str, arguments: str = "") -> str:
    """What the installed plugin says, as a runtime calls it."""
    config = json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "tunrouter-cni"})
    environ = f"CNI_COMMAND={verb} CNI_CONTAINERID={container} CNI_NETNS=/run/netns/{namespace} CNI_IFNAME=eth0"
    environ += f" CNI_PATH=/opt/cni/bin CNI_ARGS='{arguments}'"
    return machine.sh(f"echo '{config}' | {environ} /opt/cni/bin/tunrouter-cni")


def cni_add(machine: Machine, container: str, namespace: str, arguments: str = "") -> str:
    """The address of the pod."""
    make_namespace(machine, namespace)
    result = json.loads(cni(machine, "ADD", container, namespace, arguments))
    return str(result["ips"][0]["address"].partition("/")[0])


def pod_of(namespace: str, name: str) -> str:
    """CNI_ARGS as kubelet's runtimes give them."""
    return f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"


def ping(machine: Machine, name: str, address: str) -> bool:
    return machine.run("ip", "netns", "exec", name, "ping", "-nqc1", "-W1", address, check=False).returncode == 0


def restarted(machine: Machine, before: str, seconds: float) -> None:
    """Waits until systemd has another agent running in place of the one of this pid."""
    wait_until(
        "systemd restarts the agent",
        lambda: machine.show("MainPID") not in ("0", before) and machine.show("ActiveState") == "active",
        seconds,
        pause=0.2,
    )


def leftovers(machine: Machine) -> list[str]:
    """What the kernel has of ours."""
    said = [machine.run(*argv.split()).stdout for argv in ("ip -o link", "ip route", "nft list ruleset")]
    said += [machine.run(f"iptables-{kind}-save").stdout for kind in ("nft", "legacy")]
    return [line for text in said for line in text.splitlines() if re.search(r"tunrouter|weave|10\.32\.", line)]
