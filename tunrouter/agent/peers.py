"""Which peer is meant: by any of the names under which `tunrouter status` shows it, or as a target was given."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from tunrouter.core import status
from tunrouter.core.dial import text
from tunrouter.core.node import Node
from tunrouter.core.session import Session
from tunrouter.errors import AgentError


def find(node: Node, wanted: str) -> Session:
    """The one peer of this name, connected or not; raises AgentError, with the names that there are."""
    found = [session for session in node.sessions.values() if wanted in set(_names(node, session))]
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(status.peer_name(session.node) for session in found)
        raise AgentError(f"{len(found)} peers are called {wanted!r}", f"say which: {which}")
    if wanted in (status.peer_name(node.local.id), f"{node.local.id:016x}", node.local.name):
        raise AgentError(f"{wanted!r} is this node", _choice(node))
    raise _nobody(node, wanted)


def known(node: Node, wanted: str) -> int:
    """A node, this one as well, dead or alive, by any name that `status` shows; raises AgentError."""
    return _only(node, wanted, {other for other in (node.local.id, *node.mesh.nodes) if wanted in called(node, other)})


def meant(node: Node, wanted: str) -> int:
    """Another node, dead or alive, by its names and addresses or by an address in its blocks; raises AgentError."""
    try:
        address = IPv4Address(wanted)
    except ValueError:
        address = None
    if address is not None and address in node.routes.range:
        found = owner(node, address)
        if found is None:
            raise AgentError(f"{address} lies in a block that nobody has", "see: tunrouter status routes")
        other = found[0]
    else:
        others = {session.node for session in node.sessions.values() if wanted in set(_names(node, session))}
        others |= {other for other in (node.local.id, *node.mesh.nodes) if wanted in called(node, other)}
        if not others:
            raise _nobody(node, wanted)
        other = _only(node, wanted, others)
    if other == node.local.id:
        what = f"{wanted} is this node" if address is None else f"{wanted} is an address of this node"
        raise AgentError(what, f"no tunnel leads there; {_choice(node)}")
    return other


def owner(node: Node, address: IPv4Address) -> tuple[int, IPv4Network] | None:
    """Whose block the address lies in, and that block."""
    for other, announced in node.routes.announced():
        if address in announced.block:
            return other, announced.block
    return None


def called(node: Node, other: int) -> tuple[str, ...]:
    return node.name_of(other), status.peer_name(other), f"{other:016x}"


def _only(node: Node, wanted: str, found: set[int]) -> int:
    if len(found) == 1:
        return found.pop()
    if found:
        which = ", ".join(status.peer_name(other) for other in sorted(found))
        raise AgentError(f"{len(found)} nodes are called {wanted!r}", f"say which: {which}")
    raise AgentError(f"no node is called {wanted!r}", "see: tunrouter status ipam")


def _nobody(node: Node, wanted: str) -> AgentError:
    for target in node.targets:
        if wanted in (target.name, _host(target.name)):
            reason = f": {target.reason}" if target.reason else ""
            return AgentError(f"nobody has answered at {target.name}{reason}", "see: tunrouter status connections")
    return AgentError(f"no peer is called {wanted!r}", _choice(node))


def _choice(node: Node) -> str:
    known = ", ".join(sorted(node.name_of(peer) for peer in node.sessions))
    return f"name one of: {known}" if known else "no peer is known yet; see: tunrouter status connections"


def _names(node: Node, session: Session) -> Iterator[str]:
    yield status.peer_name(session.node)
    yield f"{session.node:016x}"
    if session.name:
        yield session.name
    for endpoint in (session.endpoint, session.home):
        if endpoint is not None:
            yield text(endpoint)
            yield endpoint[0]
    for target in node.targets:
        if target.node == session.node:
            yield target.name
            yield _host(target.name)


def _host(target: str) -> str:
    """Of `HOST:PORT` or `[IPV6]:PORT`."""
    host, colon, port = target.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() and ("]" in host or ":" not in host) else target
