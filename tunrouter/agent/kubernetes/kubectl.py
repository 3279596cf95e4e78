"""What to type where only kubectl is at hand: the commands by which a node's agent is seen and spoken to."""

from __future__ import annotations


def shown(node: str) -> str:
    """Lists the agent's pod of a node."""
    return f"kubectl get pods -n kube-system -l name=weave-net --field-selector spec.nodeName={node}"


def logs(node: str, container: str) -> str:
    """What a container beside the agent of a node said last."""
    return f"kubectl logs -n kube-system $({shown(node)} -o name) -c {container}"


def inside(node: str) -> str:
    """What stands before a command of ours that is to be run beside the agent of a node."""
    return f"kubectl exec -n kube-system $({shown(node)} -o name) -c weave -- "
