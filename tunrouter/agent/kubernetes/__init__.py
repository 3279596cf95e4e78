"""The agent's part in a Kubernetes cluster.

    members.py: Node objects ──> peers, which address is ours, who was deleted
    blocks.py:  Leases ──> core/leases.py ──> made and deleted
    presence.py: ready ──> plugin and network on the host, kept there
    reports.py: the Node's condition; conflicts.py, troubles.py: what a user must know, as Events
    kubectl.py: what to type where only kubectl is at hand
    assembly.py: all of this, of what an agent has

`cluster.py` joins them. Law: nothing here stops the agent. While the API is away all of it waits, and pods go on.
"""

from typing import Final

NETWORK: Final = "weave"
"""Name of the CNI network of a cluster's pods, as Weave Net called it."""
