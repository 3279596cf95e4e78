"""What there is of pods on a host, and the end of what a runtime that was killed left outside its cell.

    /var/lib/cni/results/…   libcni's notes, one of each pod: which agent made it, and in which namespace
    /run/netns/…             that namespace

Law: only what a lab's own agent made is touched; a machine's own network may have the same name.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import PREFIX, owner_lives, run

NETWORK: Final = "tunrouter"
NOTES: Final = Path("/var/lib/cni/results")


def remains(host: Host) -> dict[str, list[str]]:
    """Each kind by name; empty where there is nothing."""
    links = host.namespace.run("ip", "-br", "link").stdout.splitlines()
    rules = host.namespace.run("iptables-save", "-t", "nat").stdout.splitlines()
    found = {
        "links": [line for line in links if line.startswith("vethwe")],
        "limits": [line for line in links if line.startswith("bwp")],
        "addresses": host.agent.command("ps").stdout.splitlines(),
        "port rules": [line for line in rules if "CNI-DN-" in line],
    }
    return {kind: lines for kind, lines in found.items() if lines}


def state(host: Host) -> list[str]:
    """All that plugins could leave in a host's network, without counters."""
    run_in = host.namespace.run
    commands = ("nft -s list ruleset", "ip -o link", "ip -4 -o address", "ip -4 route show table all", "ip rule",
                "tc qdisc")  # fmt: skip
    lines = [line for command in commands for line in run_in(*command.split()).stdout.splitlines()]
    # The kernel finds out about carriers when it has time.
    return [re.sub(r"NO-CARRIER,|,LOWER_UP| state \w+| linkdown", "", line) for line in lines]


def notes_of(container: str) -> list[Path]:
    """What libcni has written down of it."""
    return list(NOTES.glob(f"*-{container}-*"))


def clear(host: Host) -> None:
    """Of one host, when its runtime is no more."""
    for note in _notes():
        if note.agent == host.agent.directory:
            note.clear()


def sweep() -> None:
    """Of labs whose owner is dead."""
    for note in _notes():
        lab = note.agent.parent.name
        if lab.startswith(f"{PREFIX}-") and not owner_lives(lab):
            note.clear()


@dataclass(frozen=True)
class _Note:
    container: str
    agent: Path
    """Directory of the one that made the pod."""
    namespaces: tuple[Path, ...]

    def clear(self) -> None:
        for namespace in self.namespaces:
            run(["umount", "--lazy", str(namespace)], check=False)
            namespace.unlink(missing_ok=True)
        # containerd has the loopback device made as if by a network of its own.
        for path in notes_of(self.container):
            path.unlink(missing_ok=True)


def _notes() -> Iterator[_Note]:
    for path in NOTES.glob(f"{NETWORK}-*"):
        try:
            written = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # a living lab's, which comes or goes just now
            continue
        ours = json.loads(base64.b64decode(written["config"]))["plugins"][0]
        within = {each["sandbox"] for each in written["result"]["interfaces"] if each.get("sandbox")}
        # Its socket is in its directory's `run`.
        yield _Note(
            written["containerId"],
            Path(ours.get("socket", "")).parent.parent,
            tuple(Path(each) for each in sorted(within)),
        )
