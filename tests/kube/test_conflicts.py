"""Settings of the cluster that work against the pods' range, each named with what to change."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from tunrouter.agent.kubernetes.conflicts import Settings, conflicts

PODS = IPv4Network("10.32.0.0/12")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(), []),
        (Settings(proxy="clusterCIDR: 10.32.0.0/12\nmode: nftables"), []),
        (Settings(proxy='clusterCIDR: "10.244.0.0/16,fd00::/48"'), ["kube-proxy takes 10.244.0.0/16"]),
        (Settings(proxy="  mode: ipvs"), ["IPVS"]),
        (Settings(kubeadm="serviceSubnet: 10.40.0.0/16", service="10.40.0.1"), ["10.40.0.0/16 overlaps"]),
        (Settings(service="10.40.0.1"), ["10.40.0.1 lies in the pods' range"]),
        (Settings(kubeadm="serviceSubnet: 10.96.0.0/16,fd00::/108", service="fd00::1"), []),
        (Settings(kubeadm="serviceSubnet: fd00::/108", service="fd00::1"), ["IPv6 addresses only (fd00::/108)"]),
        (Settings(service="fd00::1"), ["IPv6 addresses only (fd00::1/128)"]),
        (Settings(service="kubernetes.default"), []),
        (Settings(pod_cidrs={"a": "10.32.1.0/24", "b": "fd00::/64"}), []),
        (Settings(pod_cidrs={"a": "10.244.0.0/24", "b": "10.244.1.0/24"}), ["node a's podCIDR 10.244.0.0/24 and 1"]),
    ],
)
def test_what_is_named(settings: Settings, words: list[str]) -> None:
    found = conflicts(PODS, settings)
    assert len(found) == len(words), found
    for conflict, word in zip(found, words, strict=True):
        assert word in conflict.what
        assert conflict.fix
        assert str(conflict) == f"{conflict.what}; {conflict.fix}"
