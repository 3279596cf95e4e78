"""What is wrong on this node that whoever runs the cluster must know, each under the reason that its Event has."""

from __future__ import annotations

from collections.abc import Mapping

from tunrouter.agent.hostside import HostSide
from tunrouter.agent.kubernetes.presence import Presence
from tunrouter.agent.policing import Policing
from tunrouter.agent.readiness import Readiness
from tunrouter.agent.underlay import Underlay
from tunrouter.edge.runtimes import Directories

NOT_READY = "NotReady"
"""Its text may change from look to look, and most of what makes a node unready passes."""


def troubles(
    readiness: Readiness,
    host: HostSide,
    underlay: Underlay,
    runtimes: Directories,
    presence: Presence,
    policing: Policing,
) -> Mapping[str, str]:
    """Empty texts are of what is well."""
    facts = host.host.facts() if host.host is not None else None
    cut_off = ", ".join(facts.fenced) if facts is not None else ""
    strangers = "; ".join(facts.strangers) if facts is not None else ""
    fenced = f"{cut_off}: cut off, for the block of these addresses is another node's; delete these pods"
    return {
        "AddressesCutOff": fenced if cut_off else "",
        "RangeConflict": strangers,
        "ForeignNetwork": runtimes.hindrance(),
        "NotInstalled": presence.trouble,
        "PluginLeftOut": "; ".join(presence.left_out),
        "PolicyProcessAway": policing.trouble(),
        "WrongUnderlay": underlay.trouble,
        NOT_READY: readiness.unready(),
    }
