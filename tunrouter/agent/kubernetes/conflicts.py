"""What in the cluster's own settings works against the range of the pods, found in what its installer wrote down.

    kube-proxy's clusterCIDR and mode      kubeadm's serviceSubnet      podCIDRs of Nodes      the API's Service address

Law: each finding is one sentence that names what is there, what it does to pods, and what to change. What cannot be
read says nothing. The files are YAML of a known form, of which single lines are read: a whole parser is not worth three
words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from typing import NamedTuple


class Settings(NamedTuple):
    """As far as they are known."""

    proxy: str = ""
    """kube-proxy's configuration."""
    kubeadm: str = ""
    """Its ClusterConfiguration."""
    pod_cidrs: Mapping[str, str] = {}
    """Of Nodes, by name."""
    service: str = ""
    """An address of a Service."""


def conflicts(pods: IPv4Network, settings: Settings) -> tuple[str, ...]:
    return tuple(_find(pods, settings))


def _find(pods: IPv4Network, settings: Settings) -> Iterator[str]:
    for cidr in _networks(_value(settings.proxy, "clusterCIDR")):
        if cidr != pods:
            yield (
                f"kube-proxy takes {cidr} for the pods' network, which is {pods}: Services lose clients' addresses; "
                f"set clusterCIDR to {pods} in the ConfigMap kube-proxy, then restart its pods"
            )
    if _value(settings.proxy, "mode") == "ipvs":
        yield (
            "kube-proxy is in IPVS mode, in which this host has all Services' addresses itself: that is not tested; "
            "set mode to iptables or nftables in the ConfigMap kube-proxy"
        )
    yield from _of_services(pods, settings)
    yield from _of_nodes(pods, settings.pod_cidrs)


def _of_services(pods: IPv4Network, settings: Settings) -> Iterator[str]:
    fix = "give the pods another range: IPALLOC_RANGE in the ConfigMap weave-net"
    named = False
    for cidr in _networks(_value(settings.kubeadm, "serviceSubnet")):
        if cidr.overlaps(pods):
            named = True
            yield f"the Services' network {cidr} overlaps the pods' {pods}: pods do not reach those Services; {fix}"
    if not named and (address := _ipv4(settings.service)) is not None and address in pods:
        yield f"the API's Service address {address} lies in the pods' range {pods}: pods do not reach it; {fix}"


def _of_nodes(pods: IPv4Network, cidrs: Mapping[str, str]) -> Iterator[str]:
    strange = [(name, cidr) for name, text in sorted(cidrs.items()) for cidr in _networks(text) if _outside(cidr, pods)]
    if strange:
        name, cidr = strange[0]
        others = f" and {len(strange) - 1} other nodes'" if len(strange) > 1 else ""
        yield (
            f"node {name}'s podCIDR {cidr}{others} lies outside the pods' range {pods}: who goes by it (cloud routes, "
            f"kube-proxy's detectLocalMode NodeCIDR) takes pods for strangers; set --cluster-cidr to {pods}, or to none"
        )


def _outside(cidr: IPv4Network, pods: IPv4Network) -> bool:
    return not cidr.subnet_of(pods)


def _value(text: str, key: str) -> str:
    """Of `key: value` on a line of its own."""
    found = re.search(rf"^[ \t]*{key}:[ \t]*[\"']?([^\"'#\s]*)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _networks(text: str) -> list[IPv4Network]:
    """Of a list with commas, as dual-stack clusters have it."""
    found = []
    for part in text.split(","):
        try:
            network = ip_network(part.strip(), strict=False)
        except ValueError:
            continue
        if isinstance(network, IPv4Network):
            found.append(network)
    return found


def _ipv4(text: str) -> IPv4Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if isinstance(address, IPv4Address) else None
