"""What one value may be: each check returns the canonical form or raises `InvalidValueError` saying what is expected.

Law: a check is pure and knows neither key nor source; names obey RFC 1123, address blocks RFC 4632, device names the
kernel's dev_valid_name().
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from tunrouter.core import bounds, wire

MAX_IFACES: Final = 16
LONGEST_SOCKET_PATH: Final = 107
"""sizeof(sun_path) less its terminator."""
_SOCKET_SUFFIX: Final = len("/tunrouter.sock")
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?"
)
_LARGEST_MTU: Final = wire.inner_mtu(bounds.PATH_MTU_MAX, 4)
_SMALLEST_BLOCK: Final = 30
_LARGEST_RANGE: Final = 8
BLOCK_SIZES: Final = (16, 29)
"""Lengths of the prefixes that a range may be cut into, the largest block first."""
_ALL: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (compared, not bound)
_UNUSABLE: Final = tuple(IPv4Network(net) for net in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))


MAX_OBJECT_NAME: Final = 253


class InvalidValueError(ValueError):
    """`expected` completes "expected …"; `example` is a better example than the key's own, where there is one."""

    def __init__(self, expected: str, example: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.example = example


def as_given(value: object) -> object:
    return value


def choice(*allowed: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in allowed:
            raise InvalidValueError(f"one of {', '.join(allowed)}")
        return value

    return check


def node_name(value: str) -> str:
    if not value.isprintable() or not 0 < len(value.encode()) <= bounds.MAX_NAME_BYTES or value != value.strip():
        raise InvalidValueError(f"1 to {bounds.MAX_NAME_BYTES} bytes of printable text")
    return value


def object_name(value: str) -> str:
    """As a name of Kubernetes: longer than a nickname may be. `Config.nickname` is what of it is told to peers."""
    if not value.isprintable() or not 0 < len(value.encode()) <= MAX_OBJECT_NAME or value != value.strip():
        raise InvalidValueError(f"1 to {MAX_OBJECT_NAME} bytes of printable text")
    return value


network_name = node_name


def port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise InvalidValueError("a number from 1 to 65535")
    return value


def mtu(value: int) -> int:
    if value and not wire.MIN_POD_MTU <= value <= _LARGEST_MTU:
        raise InvalidValueError(f"0 (automatic) or a number from {wire.MIN_POD_MTU} to {_LARGEST_MTU}")
    return value


def workers(value: int) -> int:
    if not 1 <= value <= bounds.MAX_WORKERS:
        raise InvalidValueError(f"a number from 1 to {bounds.MAX_WORKERS}")
    return value


def interface(value: str) -> str:
    allowed = value.isascii() and value.isprintable() and not re.search(r"[\s/:%]", value)
    if not allowed or not 0 < len(value) <= 15 or value in (".", ".."):
        raise InvalidValueError("a device name of 1 to 15 characters without space, slash, colon or percent sign")
    return value


def directory(value: str) -> str:
    if not value.startswith("/") or not value.isprintable():
        raise InvalidValueError("an absolute path")
    return value.rstrip("/") or "/"


def run_directory(value: str) -> str:
    path = directory(value)
    if len(path.encode()) + _SOCKET_SUFFIX > LONGEST_SOCKET_PATH:
        raise InvalidValueError(f"a path of at most {LONGEST_SOCKET_PATH - _SOCKET_SUFFIX} bytes")
    return path


def bind_address(value: str) -> str:
    if not value:
        return value
    try:
        return str(ip_address(value))
    except ValueError:
        raise InvalidValueError("an address of this host") from None


def ifaces(value: tuple[str, ...]) -> tuple[str, ...]:
    """Devices and addresses in the order of preference; each item may be several, with commas between them."""
    wanted = [each for item in value for each in re.split(r"[\s,]+", item) if each]
    if not wanted or len(wanted) > MAX_IFACES:
        raise InvalidValueError(f"1 to {MAX_IFACES} devices or addresses of this host")
    return tuple(dict.fromkeys(_iface(each) for each in wanted))


def _iface(value: str) -> str:
    if _is_address(value):
        return underlay_address(value)
    try:
        return interface(value)
    except InvalidValueError:
        raise InvalidValueError("devices, as `ip link` shows them, or addresses of this host") from None


def underlay_address(value: str) -> str:
    """One by which other nodes can find this one."""
    expected = InvalidValueError("a unicast address that other hosts know, neither loopback nor IPv6 link-local")
    try:
        address = ip_address(value)
    except ValueError:
        raise expected from None
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise expected
    if isinstance(address, IPv6Address) and (address.is_link_local or address.scope_id):
        raise expected
    return str(address)


def reachable(value: str) -> str:
    return underlay_address(value) if value else value


def network(value: str) -> IPv4Network:
    """An IPv4 network in address/length form without host bits."""
    try:
        parsed = ip_network(value, strict=False)
    except ValueError:
        raise InvalidValueError("an IPv4 network such as 10.32.0.0/12") from None
    if isinstance(parsed, IPv6Network):
        raise InvalidValueError("an IPv4 network (IPv6 is not supported yet)")
    if "/" not in value:
        raise InvalidValueError("an IPv4 network with its length")
    if value.partition("/")[0] != str(parsed.network_address):
        raise InvalidValueError("an IPv4 network without host bits", str(parsed))
    return parsed


def address_range(value: str) -> str:
    parsed = network(value)
    if not _LARGEST_RANGE <= parsed.prefixlen <= _SMALLEST_BLOCK:
        raise InvalidValueError(f"a length from /{_LARGEST_RANGE} to /{_SMALLEST_BLOCK}")
    if any(parsed.overlaps(reserved) for reserved in _UNUSABLE):
        raise InvalidValueError("unicast addresses, neither loopback, link-local nor multicast")
    return str(parsed)


def block(value: str) -> str:
    parsed = network(value)
    if parsed.prefixlen > _SMALLEST_BLOCK:
        raise InvalidValueError(f"a length of at most /{_SMALLEST_BLOCK}: the bridge and one pod need addresses")
    return str(parsed)


def block_size(value: int) -> int:
    most, least = BLOCK_SIZES
    if not most <= value <= least:
        raise InvalidValueError(f"the length of a prefix from {most} to {least}")
    return value


def init_peers(value: int) -> int:
    if not 1 <= value <= bounds.MAX_INIT_PEERS:
        raise InvalidValueError(f"a number of nodes from 1 to {bounds.MAX_INIT_PEERS}")
    return value


def seed(value: tuple[str, ...]) -> tuple[str, ...]:
    """The first electors: an even number would bear no more losses than one less."""
    if len(value) not in range(1, bounds.MAX_ELECTORS + 1, 2) or len(set(value)) < len(value):
        raise InvalidValueError("the names of 1, 3 or 5 different nodes")
    return tuple(node_name(name) for name in value)


def ipalloc_init(value: str) -> tuple[str, object]:
    """Weave's word for a founding: the key it stands for, and its value; 0 nodes for a number that is not said."""
    mode, equals, rest = value.partition("=")
    if value == "observer":
        return "observer", True
    if value == "consensus":
        return "init_peers", 0
    if mode == "consensus" and re.fullmatch(r"[0-9]{1,9}", rest):
        return "init_peers", init_peers(int(rest))
    if mode == "seed" and equals:
        return "seed", seed(tuple(rest.split(",")))
    raise InvalidValueError("consensus, consensus=N, seed=NAME,NAME,NAME or observer")


def split_peer(value: str) -> tuple[str, str]:
    """`host`, `host:port`, `address`, `[v6]` or `[v6]:port` as (host, port or nothing)."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", value, re.DOTALL)
    if bracketed:
        return bracketed[1], bracketed[2] or ""
    if value.count(":") > 1:
        return value, ""
    host, colon, number = value.partition(":")
    if colon and not number:
        return "", ""
    return host, number


def listener(value: str) -> str:
    """Where to listen: canonical, or empty for nowhere."""
    if value in ("", "off"):
        return ""
    host, number = split_peer(value)
    if not re.fullmatch(r"[0-9]{1,5}", number) or not 1 <= int(number) <= 65535 or (host and not _is_address(host)):
        raise InvalidValueError("ADDRESS:PORT, [IPV6]:PORT, :PORT for all addresses, or off")
    return f"[{ip_address(host)}]:{int(number)}" if ":" in host else f"{host}:{int(number)}"


def listening(value: str) -> tuple[str, int]:
    """Address and port of what `listener` returned; no address stands for all of them."""
    host, number = split_peer(value)
    return host, int(number)


def listen_at_once(one: str, other: str) -> bool:
    """Whether one port would be had twice."""
    if not one or not other:
        return False
    (host, number), (other_host, other_number) = listening(one), listening(other)
    return number == other_number and (host == other_host or not {host, other_host}.isdisjoint(_ALL))


def apiserver(value: str) -> str:
    """Where the cluster's API is: as a URL, or empty for where the pod's own variables say."""
    expected = InvalidValueError("HOST:PORT, or a URL of https (or http) without a path")
    scheme, mark, rest = value.partition("://") if "://" in value else ("https", "", value)
    if not value:
        return value
    host, number = split_peer(rest.removesuffix("/") if mark else rest)
    number = number or ({"https": "443", "http": "80"}.get(scheme, "") if mark else "")
    if scheme not in ("http", "https") or not re.fullmatch(r"[0-9]{1,5}", number) or not 1 <= int(number) <= 65535:
        raise expected
    if not _is_address(host) and not _host_name(host):
        raise expected
    return f"{scheme}://[{ip_address(host)}]:{int(number)}" if ":" in host else f"{scheme}://{host}:{int(number)}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def peer_address(value: str) -> IPv4Address | IPv6Address | None:
    """The peer's address when it is given as one."""
    try:
        return ip_address(split_peer(value)[0])
    except ValueError:
        return None


def peer(value: str) -> str:
    host, number = split_peer(value)
    expected = InvalidValueError("peers as HOST, HOST:PORT or [IPV6]:PORT")
    if number and not (number.isascii() and number.isdigit() and 1 <= int(number[:6]) <= 65535):
        raise expected
    address = peer_address(value)
    if address is None and (":" in host or value.startswith("[") or not _host_name(host)):
        raise expected
    if address is not None and (address.is_unspecified or address.is_multicast):
        raise InvalidValueError("a unicast address of the peer")
    if isinstance(address, IPv6Address) and (address.is_link_local or "%" in host):
        # Addresses of peers are told to all nodes and kept over restarts; a scope means something on one link only.
        raise InvalidValueError("a global or unique local address of the peer, not a link-local one")
    return value


def _host_name(host: str) -> bool:
    """RFC 1123, underscores allowed; all digits and dots would be a mistyped address."""
    return bool(_HOST_NAME.fullmatch(host)) and not re.fullmatch(r"[0-9.]+", host)


def peers(value: tuple[str, ...]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(peer(each) for each in value))
    if len(unique) > bounds.MAX_TARGETS:
        raise InvalidValueError(f"at most {bounds.MAX_TARGETS} peers")
    return unique
