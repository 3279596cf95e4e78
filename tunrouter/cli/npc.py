"""`tunrouter npc`: checks the configuration, then becomes the process of NetworkPolicies.

Law: as `up` becomes the agent, but for the network's secrets: this process has no use for them, so none is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunrouter.cli.settings import settings
from tunrouter.cli.up import become
from tunrouter.config import Given

MODULE = "tunrouter.npc"


def run(flags: Mapping[str, object]) -> None:
    """Does not return; raises ConfigError."""
    become(MODULE, settings({**flags, "kubernetes": True}, secretive=False).config, Given())
