"""Which peer is meant: by any of the names under which `tunrouter status` shows it, or as a target was given."""

from __future__ import annotations

from collections.abc import Iterator

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
    for target in node.targets:
        if wanted in (target.name, _host(target.name)):
            reason = f": {target.reason}" if target.reason else ""
            raise AgentError(f"nobody has answered at {target.name}{reason}", "see: tunrouter status connections")
    raise AgentError(f"no peer is called {wanted!r}", _choice(node))


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
