"""What in the cluster's own settings works against the range of the pods, found in what its installer wrote down.

    kube-proxy's clusterCIDR and mode      kubeadm's serviceSubnet      podCIDRs of Nodes      the API's Service address

Law: each finding names what is there, what it does to pods, and what to change. What cannot be
read says nothing. The files are YAML of a known form, of which single lines are read: a whole parser is not worth three
words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
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


class Conflict(NamedTuple):
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}"


def conflicts(pods: IPv4Network, settings: Settings) -> tuple[Conflict, ...]:
    return tuple(_find(pods, settings))


def _find(pods: IPv4Network, settings: Settings) -> Iterator[Conflict]:
    for cidr in _ipv4_of(_networks(_value(settings.proxy, "clusterCIDR"))):
        if cidr != pods:
            yield Conflict(
                f"kube-proxy takes {cidr} for the pods' network, which is {pods}: Services lose clients' addresses",
                f"set clusterCIDR to {pods} in the ConfigMap kube-proxy, then restart its pods",
            )
    if _value(settings.proxy, "mode") == "ipvs":
        yield Conflict(
            "kube-proxy is in IPVS mode, in which this host has all Services' addresses itself: that is not tested",
            "set mode to iptables or nftables in the ConfigMap kube-proxy",
        )
    yield from _of_services(pods, settings)
    yield from _of_nodes(pods, settings.pod_cidrs)


def _of_services(pods: IPv4Network, settings: Settings) -> Iterator[Conflict]:
    fix = "give the pods another range: IPALLOC_RANGE in the ConfigMap weave-net"
    services = _networks(_value(settings.kubeadm, "serviceSubnet"))
    api = next(iter(_networks(settings.service)), None)
    overlapping = [cidr for cidr in _ipv4_of(services) if cidr.overlaps(pods)]
    for cidr in overlapping:
        yield Conflict(f"the Services' network {cidr} overlaps the pods' {pods}: pods do not reach those Services", fix)
    if not overlapping and isinstance(api, IPv4Network) and api.overlaps(pods):
        address = api.network_address
        yield Conflict(f"the API's Service address {address} lies in the pods' range {pods}: pods do not reach it", fix)
    if not _ipv4_of(known := services or ([api] if api is not None else [])) and known:
        what = f"Services have IPv6 addresses only ({known[0]}), and pods have IPv4 only: pods use none of them"
        yield Conflict(what, "give the cluster IPv4 Services: --service-cluster-ip-range of its API server")


def _of_nodes(pods: IPv4Network, cidrs: Mapping[str, str]) -> Iterator[Conflict]:
    told = ((name, cidr) for name, text in sorted(cidrs.items()) for cidr in _ipv4_of(_networks(text)))
    strange = [(name, cidr) for name, cidr in told if not cidr.subnet_of(pods)]
    if strange:
        name, cidr = strange[0]
        others = f" and {len(strange) - 1} other nodes'" if len(strange) > 1 else ""
        yield Conflict(
            f"node {name}'s podCIDR {cidr}{others} lies outside the pods' range {pods}: who goes by it (cloud routes, "
            "kube-proxy's detectLocalMode NodeCIDR) takes pods for strangers",
            f"set the controller manager's --cluster-cidr to {pods}, or to none",
        )


def _value(text: str, key: str) -> str:
    """Of `key: value` on a line of its own."""
    found = re.search(rf"^[ \t]*{key}:[ \t]*[\"']?([^\"'#\s]*)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _networks(text: str) -> list[IPv4Network | IPv6Network]:
    """Of a list with commas, as dual-stack clusters have it; an address is one of itself."""
    found = []
    for part in text.split(","):
        try:
            found.append(ip_network(part.strip(), strict=False))
        except ValueError:
            continue
    return found


def _ipv4_of(networks: list[IPv4Network | IPv6Network]) -> list[IPv4Network]:
    return [network for network in networks if isinstance(network, IPv4Network)]
