"""firewalld: its own way to let an interface and a port through, for hosts where it runs.

Law: only the running configuration is changed, never the permanent one, so nothing of ours outlives a restart of
firewalld; a reload drops it and the next look puts it back. The port's rule is known by its priority.
"""

from __future__ import annotations

import shutil
from typing import Final

from tunrouter.edge.firewall.command import run
from tunrouter.errors import HostError

TRUSTED: Final = "trusted"
POLICY: Final = "to-pods"
PRIORITY: Final = -83


def running() -> bool:
    if shutil.which("firewall-cmd") is None:
        return False
    try:
        return run(["firewall-cmd", "--state"]).strip() == "running"
    except HostError:
        return False


def trust(interfaces: list[str]) -> list[str]:
    """Puts our devices into the trusted zone, whose packets firewalld accepts whatever their destination."""
    done = []
    for name in interfaces:
        if not _says_yes([f"--zone={TRUSTED}", f"--query-interface={name}"]):
            run(["firewall-cmd", f"--zone={TRUSTED}", f"--change-interface={name}"])
            done.append(f"firewalld: {name} in zone {TRUSTED}")
    return done


def accepting(hook: str, interfaces: list[str], port: int, *, from_outside: bool) -> list[str]:
    """Commands for a person. What comes from another zone needs a policy, which firewalld only has for good."""
    trusted = [f"--zone={TRUSTED} --change-interface={name}" for name in interfaces]
    if hook == "input" or not from_outside:
        options = trusted if hook == "forward" else [f"--add-port={port}/udp"]
        return [*(f"firewall-cmd {option}" for option in options), "to keep it, the same with --permanent"]
    ends = (f"--add-{way}-zone={zone}" for way, zone in (("ingress", "ANY"), ("egress", TRUSTED)))
    policy = [f"--policy={POLICY} {option}" for option in (*ends, "--set-target=ACCEPT")]
    steps = [*trusted, f"--new-policy={POLICY}", *policy]
    return [*(f"firewall-cmd --permanent {step}" for step in steps), "firewall-cmd --reload"]


def open_port(port: int, uplinks: list[str]) -> list[str]:
    done = []
    for zone in _zones(uplinks):
        if not _says_yes([f"--zone={zone}", f"--query-rich-rule={_rule(port)}"]):
            run(["firewall-cmd", f"--zone={zone}", f"--add-rich-rule={_rule(port)}"])
            done.append(f"firewalld: UDP {port} in zone {zone}")
    return done


def remove(interfaces: list[str], port: int) -> list[str]:
    """Undoes `trust` and `open_port` in every zone."""
    done = []
    for name in interfaces:
        if _says_yes([f"--zone={TRUSTED}", f"--query-interface={name}"]):
            run(["firewall-cmd", f"--zone={TRUSTED}", f"--remove-interface={name}"])
            done.append(f"firewalld: {name} out of zone {TRUSTED}")
    for zone in run(["firewall-cmd", "--get-zones"]).split():
        if _says_yes([f"--zone={zone}", f"--query-rich-rule={_rule(port)}"]):
            run(["firewall-cmd", f"--zone={zone}", f"--remove-rich-rule={_rule(port)}"])
            done.append(f"firewalld: UDP {port} out of zone {zone}")
    return done


def _rule(port: int) -> str:
    return f'rule priority="{PRIORITY}" port port="{port}" protocol="udp" accept'


def _zones(uplinks: list[str]) -> list[str]:
    """Zones that incoming packets meet: each uplink's own, else the default one."""
    found = dict.fromkeys(zone for name in uplinks if (zone := _zone_of(name)))
    return list(found) or [run(["firewall-cmd", "--get-default-zone"]).strip()]


def _zone_of(interface: str) -> str:
    try:
        return run(["firewall-cmd", f"--get-zone-of-interface={interface}"]).strip()
    except HostError:
        return ""  # "no zone" is said by a failing exit code


def _says_yes(question: list[str]) -> bool:
    try:
        return run(["firewall-cmd", *question]).strip() == "yes"
    except HostError:
        return False
