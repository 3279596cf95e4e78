"""The whole error vocabulary: few types, each saying who is at fault.

An error carries one line that says what is wrong and one that says what to do next; the command line prints both on one
line and exits with the type's code. A bad datagram is never an error: it is counted and dropped.
"""

from __future__ import annotations


class TunrouterError(Exception):
    """Base of everything a user may see. `fix` is the next step, in the imperative."""

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}" if self.fix else self.what


class ConfigError(TunrouterError):
    """The user's input is at fault: a flag, a variable, a key of the file, a secret."""

    exit_code = 2


class HostError(TunrouterError):
    """This machine is at fault: a right, a device, a port, a route, a tool or room on disk is missing."""


class AgentError(TunrouterError):
    """The agent refused a request; the text is the agent's."""


class AgentUnreachableError(TunrouterError):
    """No agent answers on the socket."""

    exit_code = 3


class AgentAbsentError(AgentUnreachableError):
    """None runs: there is no socket, or nobody listens on it."""


class AgentSilentError(AgentUnreachableError):
    """An agent is there, and does not answer."""


class ClusterError(TunrouterError):
    """The cluster's API server does not answer, or refused; its kinds are in edge/kube/faults.py."""


class ProtocolError(TunrouterError):
    """A peer or stranger is at fault. Stays inside the core and the data plane, where it becomes a counter."""
