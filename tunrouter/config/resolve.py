"""From flags, environment and file to one `Config`: flag > environment > file > default, then what only values together
can violate.

Law: pure but for the `read` that is passed in; every error names the source, the key and the fix.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import IPv4Network, ip_address
from itertools import combinations
from pathlib import Path
from typing import Final

import msgspec

from tunrouter.config import founding, values, weave
from tunrouter.config.model import DEFAULT_ORIGIN, KEYS, KUBERNETES, Config, Origin
from tunrouter.config.secrets import find_secrets
from tunrouter.config.sources import Read, Sources, find, read_document, read_file, refuse_misspelt_variables
from tunrouter.core import bounds
from tunrouter.errors import ConfigError

METRICS_IN_KUBERNETES: Final = ":6782"
UNDERLAY: Final = ("host", "iface", "iface_can_reach")


class Resolved(msgspec.Struct, frozen=True):
    """A configuration and where each of its values came from."""

    config: Config
    origins: dict[str, Origin]
    file: Path | None
    remarks: tuple[str, ...] = ()
    """What of Weave Net's changes nothing, a line each."""

    def origin(self, key: str) -> Origin:
        return self.origins.get(key, DEFAULT_ORIGIN)


def resolve(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    read: Read = read_file,
    *,
    hostname: str | None = None,
    again: bool = False,
    secretive: bool = True,
) -> Resolved:
    """What an agent would start with; raises ConfigError. `again`: what was copied at the start is not good enough.

    Without `secretive` no secret is looked for: not every process of a node has to know them.
    """
    refuse_misspelt_variables(environ)
    sources = Sources(flags, environ, read_document(flags, environ, read), {})
    heard = weave.hear(environ, kubernetes=bool((find(KUBERNETES, sources) or [False])[0]))
    sources = sources._replace(environ=heard.environ, extra=heard.extra)
    fields: dict[str, object] = {}
    origins: dict[str, Origin] = {}
    for key in KEYS:
        found = find(key, sources)
        if found:
            fields[key.name], origins[key.name] = found
    if "name" not in fields:
        fields["name"] = _name_of_host(os.uname().nodename if hostname is None else hostname)
        origins["name"] = Origin("the host's name")
    _default_in_kubernetes(fields, origins)
    founding.translate(sources, fields, origins)
    secrets = find_secrets(sources, read, again=again) if secretive else None
    if secrets:
        fields["secrets"], origins["secrets"] = secrets[0], Origin(secrets[1])
    config = _with_block_size(msgspec.convert(fields, Config), origins)
    resolved = Resolved(config, origins, sources.document.path, heard.remarks)
    _check_together(resolved)
    return resolved


def _name_of_host(hostname: str) -> str:
    try:
        return values.node_name(hostname)
    except values.InvalidValueError as error:
        raise ConfigError(
            f"the host's name {hostname!r} cannot name a node: expected {error.expected}", "give one: --name node-a"
        ) from None


def _default_in_kubernetes(fields: dict[str, object], origins: dict[str, Origin]) -> None:
    """Prometheus comes from another host there, and asks where Weave Net's answered."""
    if fields.get(KUBERNETES.name) and "metrics_addr" not in fields:
        fields["metrics_addr"], origins["metrics_addr"] = METRICS_IN_KUBERNETES, Origin("the default in Kubernetes")


def _with_block_size(config: Config, origins: Mapping[str, Origin]) -> Config:
    """A range that is smaller than the usual block is one block, unless the user cuts it."""
    if "block_size" in origins:
        return config
    return msgspec.structs.replace(config, block_size=max(config.block_size, IPv4Network(config.range).prefixlen))


def _check_together(resolved: Resolved) -> None:
    config = resolved.config
    if config.name != config.nickname and not config.kubernetes:
        where = resolved.origins["name"].where
        what = f"{where}: expected 1 to {bounds.MAX_NAME_BYTES} bytes of printable text, got {config.name!r}"
        raise ConfigError(what, "give a shorter one")
    founding.refuse_in_kubernetes(config, resolved.origins)
    founding.refuse_beside_block(config, resolved.origins)
    _check_block_in_range(resolved)
    _check_block_size(resolved)
    if config.bridge == config.tun:
        _clash(resolved, "tun", "bridge", f"the tunnel and the bridge are both called {config.bridge!r}")
    _check_ports(resolved)
    if config.state_dir == config.run_dir:
        _clash(resolved, "state_dir", "run_dir", f"state and run directory are both {config.state_dir}")
    _check_underlay(resolved)
    pods = IPv4Network(config.range)
    if config.host and ip_address(config.host) in pods:
        _clash(resolved, "host", "range", f"the bind address {config.host} lies inside the pods' range {pods}")
    for peer in config.peers:
        address = values.peer_address(peer)
        if address is not None and address in pods:
            _clash(resolved, "peers", "range", f"the peer {peer} lies inside the pods' range {pods}")


def _check_ports(resolved: Resolved) -> None:
    """No port is had twice: in a cluster the policy process is in the same pod, and has the host's network, too."""
    names = ["health_addr", "metrics_addr", *(["npc_addr"] if resolved.config.kubernetes else [])]
    for first, second in combinations(names, 2):
        one, other = getattr(resolved.config, first), getattr(resolved.config, second)
        if values.listen_at_once(one, other):
            _clash(resolved, first, second, f"{first} {one} and {second} {other} would take one port")


def _check_underlay(resolved: Resolved) -> None:
    """One word on which address the tunnel uses, and none that means our own devices."""
    config = resolved.config
    given = [name for name in UNDERLAY if getattr(config, name)]
    if len(given) > 1:
        one, other = (resolved.origin(name).where for name in given[:2])
        raise ConfigError(f"{one} and {other} both say which address the tunnel uses", "keep one of them")
    pods = IPv4Network(config.range)
    for wanted in (*config.iface, *filter(None, [config.iface_can_reach])):
        if wanted in (config.bridge, config.tun):
            _clash(resolved, given[0], "tun", f"{wanted} is our own device: the tunnel cannot pass through it")
        if "." in wanted and (address := values.peer_address(wanted)) is not None and address in pods:
            _clash(resolved, given[0], "range", f"{wanted} lies inside the pods' range {pods}")


def _check_block_in_range(resolved: Resolved) -> None:
    config = resolved.config
    if not config.block or IPv4Network(config.block).subnet_of(IPv4Network(config.range)):
        return
    inside = next(IPv4Network(config.range).subnets(new_prefix=config.block_size))
    block, range_ = resolved.origin("block"), resolved.origin("range")
    raise ConfigError(
        f"{block.where}: {config.block} lies outside the range {config.range} ({range_.where})",
        f"choose a block inside it, for example: {block.example(str(inside))}",
    )


def _check_block_size(resolved: Resolved) -> None:
    config = resolved.config
    length, (_, least) = IPv4Network(config.range).prefixlen, values.BLOCK_SIZES
    if config.block or length <= config.block_size <= least:
        return
    size, range_ = resolved.origin("block_size"), resolved.origin("range")
    if length > least:
        what = f"the range {config.range} ({range_.where}) has no room for a block of /{least}"
        raise ConfigError(what, "give a larger one, the same on every node")
    raise ConfigError(
        f"{size.where}: a block of /{config.block_size} is larger than the range {config.range} ({range_.where})",
        f"choose smaller blocks, for example: {size.example(str(max(24, length)))}",
    )


def _clash(resolved: Resolved, first: str, second: str, what: str) -> None:
    one, other = resolved.origin(first).where, resolved.origin(second).where
    key = first if resolved.origin(first) is not DEFAULT_ORIGIN else second
    raise ConfigError(f"{what} ({first} from {one}, {second} from {other})", f"change {key}")
