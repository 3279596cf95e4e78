"""Whether NetworkManager or systemd-networkd believes that our devices are its own.

Law: they keep state by the index of a device in the namespace of the host's first process: elsewhere nothing of it is
about our devices.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge.managers import Managed, managed
from tunrouter.edge.netns import own_inode

NAME: Final = "managers"
FIRST: Final = (Path("/proc/1/ns/net"), Path("/proc/2/ns/net"))
"""Of the first process; where that may not be looked at, of the kernel's own threads, which are beside it."""


def managers(patient: Patient) -> Iterator[Finding]:
    devices = {name: patient.devices[name].index for name in patient.ours}
    found = managed(devices) if _is_of_the_host() else []
    for one in found:
        yield Finding(NAME, "fail" if one.how else "warn", _what(one), _fix(one))
    if not found:
        yield Finding(NAME, "ok", "no other program sets up our devices")


def _is_of_the_host() -> bool:
    for path in FIRST:
        with suppress(OSError):
            return os.stat(path).st_ino == own_inode()
    return True


def _what(one: Managed) -> str:
    if not one.how:
        return f"{one.who} may set up {one.device}: its state says so, and there is no nmcli to ask"
    by = f" by {one.file}" if one.file else ""
    return f"{one.who} sets up {one.device} ({one.how}{by}): it takes addresses and routes away that it did not make"


def _fix(one: Managed) -> str:
    if one.who == "NetworkManager":
        lasting = f"for good, unmanaged-devices=interface-name:{one.device} in /etc/NetworkManager/conf.d"
        return f"nmcli device set {one.device} managed no; {lasting}"
    alone = f"/etc/systemd/network/00-{one.device}.network"
    wanted = f"printf '[Match]\\nName={one.device}\\n[Link]\\nUnmanaged=yes\\n' > {alone}"
    return f"{wanted}; networkctl reload"
