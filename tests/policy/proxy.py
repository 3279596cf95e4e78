"""kube-proxy and portmap, for one endpoint: what their rules do to packets, in a table of each host's own.

    10.96.0.10:80 │ a node's 30080, 30081 │ the endpoint's node's 8080 ──┤ DNAT ├──> the endpoint's 80

Law: as kube-proxy's iptables and nftables modes with `--cluster-cidr`, rule by rule, and portmap's for its hostPort.
Who must be masqueraded is marked where the destination is translated, in prerouting and output, and masqueraded in
postrouting. A Service whose externalTrafficPolicy is Local is dropped on nodes without an endpoint, but for the node
itself and its pods, which go on to any endpoint.
"""

from __future__ import annotations

from typing import Final

from tests.e2e.services import HOOKS
from tests.policy.probing import PROTOCOLS
from tunrouter.bench.lab import Host

CLUSTER_IP: Final = "10.96.0.10"
SERVICE_PORT: Final = 80
NODE_PORT: Final = 30080
"""externalTrafficPolicy: Cluster."""
LOCAL_NODE_PORT: Final = 30081
"""externalTrafficPolicy: Local."""
HOST_PORT: Final = 8080
ENDPOINT_PORT: Final = 80
MARK: Final = "meta mark set meta mark | 0x4000"


def serve(host: Host, endpoint: str, cluster_range: str, *, local: bool, port: int = ENDPOINT_PORT) -> None:
    """`local`: the endpoint is on this host."""
    host.namespace.run("nft", "-f", "-", stdin=ruleset((endpoint, port), cluster_range, local=local))


def ruleset(endpoint: tuple[str, int], cluster_range: str, *, local: bool) -> str:
    chains = "".join(_service(protocol.lower(), *endpoint, cluster_range, local=local) for protocol in PROTOCOLS)
    refused = "" if local else f"meta l4proto {{ tcp, udp, sctp }} th dport {LOCAL_NODE_PORT} fib daddr type local drop"
    return f"""
table ip services
delete table ip services
table ip services {{
{chains}
  chain services {{
    meta l4proto vmap {{ {", ".join(f"{each.lower()} : jump {each.lower()}-services" for each in PROTOCOLS)} }}
  }}
{HOOKS}  chain without-endpoint {{
    type filter hook input priority -1;
    {refused}
  }}
}}
"""


def _service(protocol: str, endpoint: str, endpoint_port: int, cluster_range: str, *, local: bool) -> str:
    port = f"{protocol} dport"
    to_endpoint = f"{protocol} dport != 0 dnat to {endpoint}:{endpoint_port}"
    host_port = f"{port} {HOST_PORT} fib daddr type local jump {protocol}-host-port" if local else ""
    return f"""
  chain {protocol}-endpoint {{
    ip saddr {endpoint} {MARK}
    {to_endpoint}
  }}
  chain {protocol}-service {{
    ip daddr {CLUSTER_IP} ip saddr != {cluster_range} {MARK}
    jump {protocol}-endpoint
  }}
  chain {protocol}-external {{
    {MARK}
    jump {protocol}-service
  }}
  chain {protocol}-external-local {{
    ip saddr {cluster_range} goto {protocol}-service
    fib saddr type local {MARK}
    fib saddr type local goto {protocol}-service
    {f"jump {protocol}-endpoint" if local else ""}
  }}
  chain {protocol}-host-port {{
    ip saddr {{ {endpoint}, 127.0.0.1 }} {MARK}
    {to_endpoint}
  }}
  chain {protocol}-services {{
    {host_port}
    ip daddr {CLUSTER_IP} {port} {SERVICE_PORT} jump {protocol}-service
    {port} {NODE_PORT} fib daddr type local jump {protocol}-external
    {port} {LOCAL_NODE_PORT} fib daddr type local jump {protocol}-external-local
  }}
"""
