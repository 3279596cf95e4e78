"""`weave-npc`: NetworkPolicies, in a process and a container of their own.

    policies.py: the cluster's API ──> how many there are, and whether that is known
    notice.py:   that this version enforces none of them: in the log, and as an Event at the node
    metrics.py, life.py: the same as figures, health, and the process around it

Law: it knows nothing of the agent and of packets; each of the two lives without the other. The API's absence never ends
it, for a restart would not bring the API back.
"""
