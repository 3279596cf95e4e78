"""Podman on a lab's host, its networks by CNI.

Law: nothing of the machine's own podman is used: storage, state, locks and configuration are the host's own, all of
them below one directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.runtimes import image
from tests.runtimes.cell import program
from tests.runtimes.leftovers import NETWORK
from tests.runtimes.runtime import Pod, Port, Runtime

CONFIGURATION = """\
[containers]
# The usual ones are larger than what a confined root may ask for.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
events_logfile_path = "{directory}/events.log"
# Locks in shared memory would be one set for the whole machine.
lock_type = "file"
runtime = "runc"
tmp_dir = "{directory}/tmp"

[network]
network_backend = "cni"
cni_plugin_dirs = ["{directory}/plugins"]
network_config_dir = "{directory}/cni"
default_network = "{network}"
"""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{directory}/root"
runroot = "{directory}/run"
"""


class Podman(Runtime):
    name = "podman"

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
        }

    def podman(self, *arguments: str, check: bool = True) -> str:
        """What it prints, its errors too."""
        said = self.cell.run("podman", *arguments, env=self.environment, check=check)
        return said.stdout + (said.stderr if not check else "")

    def start(self) -> None:
        program("runc")
        for name, text in (("containers.conf", CONFIGURATION), ("storage.conf", STORAGE)):
            (self.directory / name).write_text(text.format(directory=self.directory, network=NETWORK))
        self.podman("load", "--quiet", "--input", str(self.image))

    def remove_all(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "0")

    def launch(self, *command: str, ports: Sequence[Port] = ()) -> Pod:
        published = [f"--publish={outside}:{inside}/{protocol}" for outside, inside, protocol in ports]
        identity = self.podman("run", "--detach", "--pull=never", *published, image.NAME, *command).strip()
        return Pod(self, identity)

    def address(self, identity: str) -> str:
        wanted = f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}'
        return self.podman("inspect", "--format", wanted, identity).strip()

    def namespace(self, identity: str) -> Path:
        return Path(self.podman("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", identity).strip())

    def execute(self, identity: str, *argv: str) -> str:
        return self.podman("exec", identity, *argv, check=False)

    def remove(self, identity: str) -> None:
        self.podman("rm", "--force", "--time", "0", identity)
