"""Whether NetworkManager or systemd-networkd sets up a device, by what they keep under /run.

Law (seen with NetworkManager 1.42 and systemd 252): NetworkManager writes `managed=true` into the device's file also
when it only watches what another program made ("connected (externally)"), so nmcli is asked about those. networkd's
file has an ADMIN_STATE other than `unmanaged` where a .network file matches the device.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

NM_DEVICES: Final = Path("/run/NetworkManager/devices")
NETWORKD_LINKS: Final = Path("/run/systemd/netif/links")
NMCLI: Final = ("nmcli", "-t", "-f", "DEVICE,STATE", "device")
NMCLI_SECONDS: Final = 5.0
HARMLESS: Final = ("unmanaged", "connected (externally)")
LEFT_ALONE: Final = ("", "unmanaged", "linger")


class Managed(NamedTuple):
    device: str
    who: str
    how: str
    """The state that it shows, and for networkd the file that matched; empty where it cannot be asked."""
    file: str = ""


def managed(devices: dict[str, int]) -> list[Managed]:
    """Of `devices` with their indices, those that another program sets up, or may."""
    return [*_by_networkmanager(devices), *_by_networkd(devices)]


def _by_networkmanager(devices: dict[str, int]) -> Iterator[Managed]:
    claimed = [name for name, index in devices.items() if _fields(NM_DEVICES / str(index)).get("managed") == "true"]
    states = _nmcli() if claimed else {}
    for name in claimed:
        if states is None:
            yield Managed(name, "NetworkManager", "")
        elif states.get(name, "unmanaged") not in HARMLESS:
            yield Managed(name, "NetworkManager", states[name])


def _by_networkd(devices: dict[str, int]) -> Iterator[Managed]:
    for name, index in devices.items():
        found = _fields(NETWORKD_LINKS / str(index))
        if found.get("ADMIN_STATE", "") not in LEFT_ALONE:
            yield Managed(name, "systemd-networkd", found["ADMIN_STATE"], found.get("NETWORK_FILE", ""))


def _fields(path: Path) -> dict[str, str]:
    """`name=value` lines; none of a file that is not there."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value for name, equals, value in (line.partition("=") for line in lines) if equals}


def _nmcli() -> dict[str, str] | None:
    """States by device; none where NetworkManager does not run, None where nobody can tell."""
    try:
        said = subprocess.run(
            NMCLI, capture_output=True, text=True, timeout=NMCLI_SECONDS, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return dict(_states(said.stdout.splitlines()))


def _states(lines: Collection[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        device, _, state = line.partition(":")  # a device's name has no colon but in an alias's, which are not ours
        yield device, state
