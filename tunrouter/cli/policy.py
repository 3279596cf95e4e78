"""`tunrouter policy`: what NetworkPolicies say to a connection and why, and which there are.

Law: the policy process of this node answers, from what it knows of the whole cluster; the command only words it. Its
exit codes are for scripts: 0 permitted (or in force), 1 not, 2 the question is at fault, 3 nobody answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, TypeVar

import msgspec
import typer

from tunrouter.cli.ipam import some
from tunrouter.cli.settings import one_of, policing
from tunrouter.cli.text import cells, fit, paint, printable, wants_colour
from tunrouter.edge.api import ExplainCall, Explained, PoliciesCall, PolicyCall, PolicyRow, PolicyTable, Step
from tunrouter.errors import AgentError, AgentUnreachableError, ConfigError

SCHEMA: Final = 1
OUTPUTS: Final = ("text", "wide", "json")
REFUSED: Final = 1
AT_FAULT: Final = 2
NODE: Final = "node"
NAMESPACE: Final = "default"
"""kubectl's, where nobody gives one."""
PROTOCOLS: Final = ("tcp", "udp", "sctp", "icmp")
LAST_PORT: Final = 65535
HEADINGS: Final = ("NAMESPACE", "NAME", "DIRECTIONS", "PODS", "HERE", "FAULTS")
T = TypeVar("T")


# --- explain ---------------------------------------------------------------------------------------------------------
def explain(source: str, destination: str, port: str, output: str, socket: str | None) -> None:
    one_of("output", output, OUTPUTS)
    number, protocol = opening(port)
    call = ExplainCall(end(source), end(destination), number, protocol.upper())
    found = _ask(call, Explained, socket)
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, **msgspec.structs.asdict(found)}))
    else:
        typer.echo("\n".join(explained(call, found, wide=output == "wide", colour=wants_colour())))
    if not found.allowed:
        raise typer.Exit(REFUSED)


def end(text: str) -> str:
    """As weave-npc takes it; raises ConfigError."""
    if text == NODE or _is_address(text):
        return text
    namespace, slash, name = text.rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        fix = "give NAMESPACE/POD, POD (of the namespace default), an address, or node"
        raise ConfigError(f"{text!r} names no end of a connection", fix)
    return f"{namespace or NAMESPACE}/{name}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def opening(text: str) -> tuple[int, str]:
    """Port and protocol; raises ConfigError."""
    port, slash, named = text.partition("/")
    protocol = named.lower() if slash else PROTOCOLS[0]
    if not (port.isascii() and port.isdigit() and len(port) <= len(str(LAST_PORT)) and int(port) <= LAST_PORT):
        raise ConfigError(f"expected PORT or PORT/PROTOCOL, got {text!r}", "for example: 80, 53/udp or 0/icmp")
    return int(port), one_of("protocol", protocol, PROTOCOLS)


def explained(call: ExplainCall, found: Explained, *, wide: bool, colour: bool) -> Iterator[str]:
    what = call.protocol if call.protocol == "ICMP" else f"{call.protocol} {call.port}"
    verdict = paint("ALLOWED", "green", on=colour) if found.allowed else paint("DENIED", "red", on=colour)
    yield f"{verdict}: {printable(f'{what} from {found.source} to {found.destination}')}"
    yield ""
    for step in found.steps:
        yield from _step(step, wide=wide, colour=colour)
    if found.hints:
        yield ""
    yield from (f"{paint('hint', 'yellow', on=colour)}: {printable(hint)}" for hint in found.hints)


def _step(step: Step, *, wide: bool, colour: bool) -> Iterator[str]:
    verdict = paint("allowed", "green", on=colour) if step.allowed else paint("denied ", "red", on=colour)
    pod = f"{step.pod}: " if step.pod else ""
    yield f"{printable(step.direction):<7}  {verdict}  {printable(pod + step.why)}"
    if step.policies:
        names = ", ".join(step.policies) if wide else some(step.policies)
        yield f"{'':<16}  isolated by {printable(names)}"


# --- list ------------------------------------------------------------------------------------------------------------
def show(output: str, socket: str | None) -> None:
    one_of("output", output, OUTPUTS)
    found = _ask(PoliciesCall(), PolicyTable, socket)
    if output == "json":
        typer.echo(msgspec.json.encode({"schema": SCHEMA, **msgspec.structs.asdict(found)}))
    else:
        typer.echo("\n".join(table(found, wide=output == "wide", colour=wants_colour())))
    if not found.in_force:
        raise typer.Exit(REFUSED)


def table(found: PolicyTable, *, wide: bool, colour: bool) -> Iterator[str]:
    if found.policies:
        rows = [HEADINGS, *(_row(row, wide=wide) for row in found.policies)]
        widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
        yield from ("  ".join(map(fit, row, widths)).rstrip() for row in rows)
        yield ""
    yield _state(found, colour=colour)


def _row(row: PolicyRow, *, wide: bool) -> tuple[str, ...]:
    words = (row.namespace, row.name, ", ".join(row.directions), str(row.pods), str(row.here), _faults(row, wide=wide))
    return tuple(map(printable, words))


def _faults(row: PolicyRow, *, wide: bool) -> str:
    if wide or len(row.faults) < 2:
        return "; ".join(row.faults) or "-"
    return f"{row.faults[0]} (and {len(row.faults) - 1} more)"


def _state(found: PolicyTable, *, colour: bool) -> str:
    count = len(found.policies)
    policies = f"{count or 'no'} {'policy' if count == 1 else 'policies'}"
    why = printable(found.why)
    if not found.in_force:
        return f"{policies}, {paint('NOT in force', 'red', on=colour)}: {why}"
    return f"{policies}, {paint('in force', 'green', on=colour)}" + (f" (but this may be old: {why})" if why else "")


# --- asking ----------------------------------------------------------------------------------------------------------
def _ask(call: PolicyCall, result: type[T], socket: str | None) -> T:
    """A question that is refused is not one that is answered with no."""
    try:
        return policing(socket).ask(call, result)
    except AgentUnreachableError:
        raise
    except AgentError as error:
        error.exit_code = AT_FAULT
        raise
