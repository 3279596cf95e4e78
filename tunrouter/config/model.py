"""The configuration as one frozen value, and the table of its keys: name, type, check, flag and variables of each.

Law: a key exists once, here; flags, environment variables, the file, the example file and the documentation follow it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from tunrouter.config import values
from tunrouter.core import bounds

DEFAULT_FILE: Final = Path("/etc/tunrouter/config.toml")
SOCKET_NAME: Final = "tunrouter.sock"
NPC_SOCKET_NAME: Final = "npc.sock"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the agent is told. `docs/configuration.md` describes each field for users."""

    name: str
    port: int = 6783
    peers: tuple[str, ...] = ()
    block: str = ""
    """This node's part of the range, given by hand; empty: the nodes decide whose block is whose."""
    range: str = "10.32.0.0/12"
    block_size: int = 24
    """Length of the equal blocks that the range is cut into."""
    init_peers: int = 0
    """A majority of so many nodes founds the cluster."""
    seed: tuple[str, ...] = ()
    """The nodes that found it, and are its first electors."""
    observer: bool = False
    """It joins, and never founds."""
    network: str = "weave"
    mtu: int = 0
    """What pods are born with; 0: as large as the underlay allows."""
    bridge: str = "weave"
    tun: str = "tunrouter0"
    host: str = ""
    """The address to bind; empty: all."""
    iface: tuple[str, ...] = ()
    """Devices, or addresses of this host: the tunnel uses the first that is there; none: all."""
    iface_can_reach: str = ""
    """The tunnel uses the address that packets to this one leave with."""
    state_dir: str = "/var/lib/tunrouter"
    run_dir: str = "/run/tunrouter"
    cni_bin_dir: str = "/opt/cni/bin"
    """Where container runtimes look for plugins."""
    cni_conf_dir: str = "/etc/cni/net.d"
    """Where they look for networks."""
    metrics_addr: str = "127.0.0.1:6782"
    """Where metrics and health are served; empty: nowhere."""
    health_addr: str = ""
    """Where health alone is served; empty: nowhere."""
    npc_addr: str = "127.0.0.1:6781"
    """Where `tunrouter npc` serves its metrics and health; empty: nowhere."""
    kubernetes: bool = False
    """This node is one of a cluster's, which says who the peers are and whose each block is."""
    apiserver: str = ""
    """Where the cluster's API is; empty: where the pod's variables say."""
    expect_npc: bool = True
    """In a cluster: `tunrouter npc` runs on this node, and no pod is added without its policies."""
    host_firewall: bool = True
    workers: int = 1
    """Processes that move packets."""
    bench: bool = True
    """Peers may measure the path to this node."""
    discovery: bool = True
    """Neighbours are chosen among all nodes; otherwise only the peers given here are."""
    silent: bool = False
    """Strangers get no reject."""
    log_level: str = "info"
    log_format: str = "text"
    secrets: tuple[str, ...] = ()
    """Accepted secrets, the first seals; none: plaintext mode."""

    @property
    def nickname(self) -> str:
        """What people call this node: its name, or as much of it as a record has room for."""
        return self.name.encode()[: bounds.MAX_NAME_BYTES].decode(errors="ignore")

    @property
    def socket(self) -> Path:
        """Where the agent answers."""
        return Path(self.run_dir) / SOCKET_NAME

    @property
    def npc_socket(self) -> Path:
        """Where `tunrouter npc` answers."""
        return Path(self.run_dir) / NPC_SOCKET_NAME

    @property
    def notes(self) -> Path:
        """Where the CNI plugin writes down what it could not tell the agent."""
        return Path(self.state_dir) / "cni"

    def masked(self) -> dict[str, object]:
        """The fields, for people: secrets are only counted."""
        shown = {field: getattr(self, field) for field in self.__struct_fields__ if field != "secrets"}
        return shown | {"secrets": ("***",) * len(self.secrets)}

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{field}={value!r}' for field, value in self.masked().items())})"


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from, and how one is written there."""

    where: str
    form: str = "{}"

    def example(self, value: str) -> str:
        return self.form.format(value)


DEFAULT_ORIGIN: Final = Origin("the default")


class Key(msgspec.Struct, frozen=True):
    """One key. `check` takes the native type and returns the canonical value or raises `values.InvalidValueError`."""

    name: str
    native: type
    check: Callable[[Any], object]
    example: str
    flag: str = ""
    """Empty: `--` and the name."""
    weave_variable: str = ""

    @property
    def option(self) -> str:
        return self.flag or f"--{self.name.replace('_', '-')}"

    @property
    def variables(self) -> tuple[str, ...]:
        """Ours first: it wins over Weave's."""
        ours = f"TUNROUTER_{self.name.upper()}"
        return (ours, self.weave_variable) if self.weave_variable else (ours,)


KUBERNETES: Final = Key("kubernetes", bool, values.as_given, "true")
KEYS: Final = (
    Key("name", str, values.object_name, "node-a"),
    Key("port", int, values.port, "6783"),
    Key("peers", tuple, values.peers, "192.0.2.7", flag="PEER argument", weave_variable="KUBE_PEERS"),
    Key("block", str, values.block, "10.32.1.0/24"),
    Key("range", str, values.address_range, "10.32.0.0/12", weave_variable="IPALLOC_RANGE"),
    Key("block_size", int, values.block_size, "24"),
    Key("init_peers", int, values.init_peers, "3"),
    Key("seed", tuple, values.seed, "node-a"),
    Key("observer", bool, values.as_given, "true"),
    Key("network", str, values.network_name, "weave"),
    Key("mtu", int, values.mtu, "1376", weave_variable="WEAVE_MTU"),
    Key("bridge", str, values.interface, "weave"),
    Key("tun", str, values.interface, "tunrouter0"),
    Key("host", str, values.bind_address, "192.0.2.7"),
    Key("iface", tuple, values.ifaces, "eth1"),
    Key("iface_can_reach", str, values.reachable, "192.0.2.1"),
    Key("state_dir", str, values.directory, "/var/lib/tunrouter"),
    Key("run_dir", str, values.run_directory, "/run/tunrouter"),
    Key("cni_bin_dir", str, values.directory, "/opt/cni/bin", weave_variable="WEAVE_CNI_PLUGIN_DIR"),
    Key("cni_conf_dir", str, values.directory, "/etc/cni/net.d"),
    Key("metrics_addr", str, values.listener, "127.0.0.1:6782", weave_variable="WEAVE_METRICS_ADDR"),
    Key("health_addr", str, values.listener, "127.0.0.1:6784", weave_variable="WEAVE_HTTP_ADDR"),
    Key("npc_addr", str, values.listener, "127.0.0.1:6781", flag="--listen"),
    KUBERNETES,
    Key("apiserver", str, values.apiserver, "https://192.0.2.1:6443"),
    Key("expect_npc", bool, values.as_given, "true", weave_variable="EXPECT_NPC"),
    Key("host_firewall", bool, values.as_given, "true", flag="--host-firewall"),
    Key("workers", int, values.workers, "2"),
    Key("bench", bool, values.as_given, "true"),
    Key("discovery", bool, values.as_given, "true"),
    Key("silent", bool, values.as_given, "true"),
    Key("log_level", str, values.choice("debug", "info", "warning", "error"), "info"),
    Key("log_format", str, values.choice("text", "json"), "text"),
)
SECRET_KEYS: Final = ("password", "password_file")
