"""containerd on a lab's host, asked as a kubelet asks: by the Container Runtime Interface.

    RunPodSandbox (its network: our plugin) ── CreateContainer, StartContainer ── ExecSync
    StopPodSandbox (DEL, and a second one without a namespace) ── RemovePodSandbox

Law: nothing of the machine's own containerd is used: root, state and socket are the host's own, below one directory.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.runtimes import image
from tests.runtimes.cell import program
from tests.runtimes.runtime import Pod, Port, Runtime
from tunrouter.bench.lab import Host
from tunrouter.bench.namespaces import wait_until

try:
    import grpc  # type: ignore[import-untyped]
    from cri_api.v1 import api_pb2 as cri
    from cri_api.v1 import api_pb2_grpc
except ImportError as error:
    raise ImportError(f"{error}; run `make install`, or: pip install container-runtime-interface-api") from error

CONFIGURATION = """\
version = 2
root = "{directory}/root"
state = "{directory}/run"
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{directory}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
# A confined root may not ask for more than it has.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{directory}/plugins"
conf_dir = "{directory}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{directory}/runc"
"""
START_SECONDS: Final = 20
services: Any = api_pb2_grpc
"""Its stubs have no types."""
_numbers = itertools.count(1)


class Containerd(Runtime):
    name = "containerd"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.log = self.directory / "containerd.log"
        self._channel: Any = None
        self._runtime: Any = None
        self._containers: dict[str, str] = {}
        """The one that is in a pod, by the pod."""

    def start(self) -> None:
        program("runc")
        configuration = self.directory / "config.toml"
        configuration.write_text(CONFIGURATION.format(directory=self.directory, image=image.NAME))
        with self.log.open("ab") as log:
            self.cell.spawn("containerd", "--config", str(configuration), log=log, env=self.environment)
        socket = self.directory / "containerd.sock"
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._runtime = services.RuntimeServiceStub(self._channel)
        wait_until(f"containerd on {self.host} is ready; it wrote {self.log}", self._ready, START_SECONDS)
        self.cell.run("ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "import", str(self.image))
        wait_until("the image is known", self._has_image, START_SECONDS)

    def _ready(self) -> bool:
        try:
            status = self._runtime.Status(cri.StatusRequest()).status
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN}:
                return False
            raise
        return all(condition.status for condition in status.conditions)

    def _has_image(self) -> bool:
        asked = cri.ImageStatusRequest(image=cri.ImageSpec(image=image.NAME))
        return bool(services.ImageServiceStub(self._channel).ImageStatus(asked).image.id)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self._channel.close()

    def launch(self, *command: str, ports: Sequence[Port] = (), annotations: Mapping[str, str] = {}) -> Pod:
        name = f"pod{next(_numbers)}"
        sandbox = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=name, namespace="default"),
            hostname=name,
            log_directory=str(self.directory / "logs"),
            port_mappings=[_mapping(port) for port in ports],
            annotations=annotations,
            linux=cri.LinuxPodSandboxConfig(),
        )
        identity = self._runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=sandbox)).pod_sandbox_id
        container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="only"),
            image=cri.ImageSpec(image=image.NAME),
            command=command,
            linux=cri.LinuxContainerConfig(),
        )
        asked = cri.CreateContainerRequest(pod_sandbox_id=identity, config=container, sandbox_config=sandbox)
        self._containers[identity] = self._runtime.CreateContainer(asked).container_id
        self._runtime.StartContainer(cri.StartContainerRequest(container_id=self._containers[identity]))
        return Pod(self, identity)

    def address(self, identity: str) -> str:
        asked = cri.PodSandboxStatusRequest(pod_sandbox_id=identity)
        return str(self._runtime.PodSandboxStatus(asked).status.network.ip)

    def execute(self, identity: str, *argv: str) -> str:
        asked = cri.ExecSyncRequest(container_id=self._containers[identity], cmd=argv, timeout=30)
        answer = self._runtime.ExecSync(asked)
        said: bytes = answer.stdout + answer.stderr
        return said.decode()

    def end(self, identity: str) -> None:
        """Its network is taken down; the runtime still knows it."""
        self._runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=identity))

    def namespace(self, identity: str) -> Path:
        asked = cri.PodSandboxStatusRequest(pod_sandbox_id=identity, verbose=True)
        info = json.loads(self._runtime.PodSandboxStatus(asked).info["info"])
        found = info["runtimeSpec"]["linux"]["namespaces"]
        return Path(next(each["path"] for each in found if each["type"] == "network"))

    def remove(self, identity: str) -> None:
        self.end(identity)
        self._runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=identity))

    def remove_all(self) -> None:
        for pod in self._runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items:
            self.remove(pod.id)


def _mapping(port: Port) -> Any:
    protocol = {"tcp": cri.TCP, "udp": cri.UDP}[port.protocol]
    return cri.PortMapping(host_port=port.outside, container_port=port.inside, protocol=protocol)
