"""Objects as the API has them in clusters that are not a textbook's."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from tunrouter.core.policy.compiler import compile as compiled
from tunrouter.core.policy.model import Placed, Pod
from tunrouter.core.policy.ruleset import OPEN
from tunrouter.edge.kube import objects
from tunrouter.npc import translation


def pod(status: dict[str, Any], **metadata: Any) -> Pod:
    told = {"metadata": {"namespace": "shop", "name": "web", "uid": "of-the-api"} | metadata, "status": status}
    return translation.pod(objects.PODS.decode(json.dumps(told).encode()))


def test_a_static_pod_is_known_by_the_uid_that_its_runtime_tells() -> None:
    static = "1fa419d8454b29b54d3295c64c05e200"
    found = pod({}, annotations={"kubernetes.io/config.hash": static, "kubernetes.io/config.mirror": static})
    address = ip_address("10.32.0.1")
    ruleset = compiled("here", [found], {"shop": {}}, [], [Placed(address, ("shop", "web"), static)])
    assert ruleset.pods == {address: OPEN}, "it is the container of that pod"


@pytest.mark.parametrize("zone", ["eth0", "eth0 }\nflush ruleset\n"])
def test_an_address_with_a_zone_is_none(zone: str) -> None:
    assert pod({"podIP": f"fe80::1%{zone}", "podIPs": [{"ip": "fd00::1"}]}).addresses == (ip_address("fd00::1"),)
