"""What Weave Net left on this host: devices, rules, ipsets and files. None of it belongs to anybody any more.

Law: rules that packets still meet are a failure, for its network policy ends with a drop of all that goes to pods; the
rest is only in the way of the next one who reads this host. Nothing of ours looks like it: our ports have names like
its, but say in their aliases whose they are.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge.firewall.leftovers import remains
from tunrouter.edge.netlink import Link, ipset
from tunrouter.host import strangers, switches
from tunrouter.host.pods import from_link
from tunrouter.host.strangers import WEAVE_NET

NAME: Final = "leftovers"
BRIDGE: Final = "weave"
STATE: Final = Path("/var/lib/weave")
DATA: Final = "weave*.db"
"""There: what else lies in that directory may be anybody's."""
PLUGINS: Final = ("weave-net", "weave-ipam", "weave-plugin-*")
NETWORKS: Final = ("10-weave.conf", "10-weave.conflist")
SETS: Final = ("weave-", "weaver-")
SHOWN: Final = 3
GONE: Final = "if Weave Net is gone for good"


def leftovers(patient: Patient) -> Iterator[Finding]:
    found = [*_rules(), *_devices(patient), *_sets(), *_files(patient)]
    yield from found
    if not found:
        yield Finding(NAME, "ok", "nothing of Weave Net is left")


def _rules() -> Iterator[Finding]:
    for there in remains(BRIDGE):
        what = f"{there.backend} has chains of {WEAVE_NET}: {_some(there.chains)}"
        if there.reached:
            what += ", and packets to pods meet them"
        yield Finding(NAME, "fail" if there.reached else "warn", what, f"{GONE}: {'; '.join(there.commands)}")


def _devices(patient: Patient) -> Iterator[Finding]:
    links = [link for link in patient.devices.values() if _is_its(patient, link)]
    if links:
        names = {link.name for link in links}
        commands = [strangers.removal(link) for link in links if not _goes_along(link, names)]
        what = f"devices of {WEAVE_NET}: {_some(sorted(names))}"
        yield Finding(NAME, "warn", what, f"{GONE}: {'; '.join(filter(None, commands))}")


def _is_its(patient: Patient, link: Link) -> bool:
    if strangers.maker_of(link.name) != WEAVE_NET or from_link(link) or link.alias.startswith(switches.MARK):
        return False
    if link.kind != "bridge" or link.name != patient.known.bridge:
        return True
    # Without ports it is a bridge that we take over.
    return bool(strangers.foreign_ports(port for port in patient.devices.values() if port.master == link.index))


def _goes_along(link: Link, names: set[str]) -> bool:
    """With the device that it is the other end or a port of."""
    with_bridge = link.name in {"vethwe-datapath", "vethwe-pcap"} and "vethwe-bridge" in names
    return with_bridge or (link.name == "vxlan-6784" and link.master != 0)


def _sets() -> Iterator[Finding]:
    names = [name for name in ipset.names() if name.startswith(SETS)]
    if names:
        commands = "; ".join(f"ipset destroy {shlex.quote(name)}" for name in names)
        yield Finding(NAME, "warn", f"ipsets of {WEAVE_NET}: {_some(names)}", f"{GONE}: {commands}")


def _files(patient: Patient) -> Iterator[Finding]:
    known = patient.known
    paths = sorted(STATE.glob(DATA))
    paths += [path for name in PLUGINS for path in sorted(Path(known.cni_bin_dir).glob(name))]
    paths += [path for name in NETWORKS if _names_it(path := Path(known.cni_conf_dir) / name)]
    if paths:
        listed = [str(path) for path in paths]
        yield Finding(NAME, "warn", f"files of {WEAVE_NET}: {_some(listed)}", f"{GONE}: rm {shlex.join(listed)}")


def _names_it(path: Path) -> bool:
    """A network of that name may be somebody else's."""
    try:
        return f'"{PLUGINS[0]}"' in path.read_text(errors="replace")
    except OSError:
        return False


def _some(names: Iterable[str]) -> str:
    """The first of them."""
    listed = list(names)
    more = len(listed) - SHOWN
    return ", ".join(listed[:SHOWN]) + (f" and {more} more" if more > 0 else "")
