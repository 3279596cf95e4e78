"""A lab's host whose agent is a container of the image, as the manifest runs it: with capabilities and mounts, and
without privileges.

Law: what the container is given stands here once, and in docs/image.md with the reason of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tests.image.archive import NAME, Archive
from tests.runtimes.podman import Podman
from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import wait_until
from tunrouter.errors import HostError

CAPABILITIES: Final = ("DAC_OVERRIDE", "NET_ADMIN", "NET_RAW", "SYS_ADMIN")
START_SECONDS: Final = 20
CONFINED: Final = ("--cap-drop=all", "--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges")


class Contained(Podman):
    def __init__(self, host: Host, neighbour: Host, archive: Archive, secret: str) -> None:
        super().__init__(host)
        self.neighbour = neighbour
        self._archive = archive
        self._secret = secret

    def start(self) -> None:
        super().start()
        self.podman("load", "--quiet", "--input", str(self._archive.path))

    def once(self, *arguments: str, options: Sequence[str] = (), check: bool = True) -> str:
        """What a container says that nothing is given to."""
        nothing = ("--rm", "--pull=never", "--network=none", *CONFINED)
        return self.podman("run", *nothing, *options, NAME, *arguments, check=check)

    @property
    def mounts(self) -> dict[str, str]:
        """By their place inside."""
        directory = self.host.agent.directory
        secret = directory / "secret"
        secret.touch(mode=0o400)
        secret.write_text(self._secret + "\n")
        return {
            "/dev/net/tun": "/dev/net/tun",
            "/host/proc/sys/net": "/proc/sys/net",
            "/run/netns:ro,rslave": "/run/netns",
            "/run/tunrouter": str(directory / "run"),
            "/run/xtables.lock": "/run/xtables.lock",
            "/secret:ro": str(secret),
            "/var/lib/tunrouter": str(directory / "state"),
        }

    @contextmanager
    def agent(self, *, without: Sequence[str] = ()) -> Iterator[str]:
        """The container's id; without some capabilities or mounts."""
        given = [f"--cap-add={name}" for name in CAPABILITIES if name not in without]
        given += [f"--volume={outside}:{inside}" for inside, outside in self.mounts.items() if inside not in without]
        wanted = ("up", "--name", str(self.host), "--block", self.host.agent.block, "--password-file=/secret")
        up = (*CONFINED, *given, NAME, *wanted, self.neighbour.endpoint)
        identity = self.podman("run", "--detach", "--pull=never", "--network=host", *up).strip()
        try:
            wait_until("the agent in a container knows its neighbour", lambda: self._connected(identity), START_SECONDS)
            yield identity
        finally:
            self.podman("rm", "--force", "--time", "5", identity)

    def _connected(self, identity: str) -> bool:
        status = self.podman("exec", identity, "/home/weave/weave", "--local", "status", check=False)
        if re.search(r"Connections: 1 \(1 established\)", status):
            return True
        if self.podman("inspect", "--format", "{{.State.Status}}", identity).strip() != "running":
            said = self.podman("logs", identity, check=False).strip().splitlines()
            raise HostError(f"the agent in a container ended: {said[-1] if said else 'it said nothing'}")
        return False
