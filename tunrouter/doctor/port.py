"""Who has the tunnel's UDP port."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient, is_of_ours
from tunrouter.edge.holders import Holder

MAX_COMMAND: Final = 60


def port(patient: Patient) -> Iterator[Finding]:
    number, running = patient.known.port, patient.known.running
    there = [holder for holder in patient.holders if _clashes(holder, patient.host)]
    strangers = [holder for holder in there if not (running and (is_of_ours(holder) or not holder.pid))]
    if strangers:
        yield Finding("port", "fail", f"UDP {number} is held by {_named(strangers)}", _fix(strangers, number))
    elif running and not there:
        yield Finding("port", "fail", f"an agent runs, but UDP {number} is not open", "restart the agent")
    else:
        yield Finding("port", "ok", f"UDP {number} is {'open' if there else 'free'}")


def _clashes(holder: Holder, host: str) -> bool:
    """It is bound to the same address, or one of the two to all."""
    wanted = ipaddress.ip_address(host) if host else None
    return wanted is None or any(address.is_unspecified or address == wanted for address in holder.addresses)


def _named(strangers: Sequence[Holder]) -> str:
    """The first, whose sockets the others mostly inherited."""
    holder = strangers[0]
    more = f", and {len(strangers) - 1} more" if strangers[1:] else ""
    if not holder.pid:
        return f"the kernel, or a program that cannot be seen from here{more}"
    who = "another tunrouter" if is_of_ours(holder) else holder.name
    return f"{who} (pid {holder.pid}: {holder.command[:MAX_COMMAND]}){more}"


def _fix(strangers: Sequence[Holder], number: int) -> str:
    pids = " ".join(str(holder.pid) for holder in strangers if holder.pid)
    other = "choose another --port on every node"
    return f"kill {pids}; else {other}" if pids else f"see which with ss -ulpn sport = :{number}; else {other}"
