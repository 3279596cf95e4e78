"""What a runtime is answered: the specification's own examples with this network's devices, exact in every version."""

from __future__ import annotations

import copy
import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cni.structure import error_faults, success_faults
from tunrouter.cni import errors
from tunrouter.cni.errors import CniError
from tunrouter.cni.request import VERSIONS, Local, Request, read
from tunrouter.cni.result import Pod, added, failed

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
POD = Pod(
    bridge="tunrouter0",
    bridge_mac="00:11:22:33:44:55",
    port="veth3243",
    port_mac="55:44:33:22:11:11",
    mac="99:88:77:66:55:44",
    address=IPv4Address("10.32.1.5"),
    gateway=IPv4Address("10.32.1.1"),
    mtu=1376,
)
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "0123abcd",
    "CNI_NETNS": "/var/run/netns/blue",
    "CNI_IFNAME": "eth0",
}
LOCAL = Local(range=IPv4Network("10.32.0.0/12"), mtu=1376, bridge="tunrouter0", gateway=IPv4Address("10.32.1.1"))
DNS = {"nameservers": ["10.1.0.1"]}


def golden(version: str) -> Any:
    return json.loads((GOLDEN / f"{version}.json").read_text())


def asked(version: str, environment: dict[str, str] | None = None, **keys: Any) -> Request:
    config = {"cniVersion": version, "name": "dbnet", "type": "tunrouter-cni", **keys}
    return read(ENVIRONMENT | (environment or {}), json.dumps(config).encode(), LOCAL)


def answered(version: str, **keys: Any) -> dict[str, Any]:
    said = added(asked(version, **keys), POD)
    assert success_faults(json.loads(json.dumps(said)), version) == []
    return said


def previous_of(version: str) -> dict[str, Any]:
    """The result of the specification's example, of a plugin that came before."""
    address = {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2}
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": "cni0", "mac": "00:11:22:33:44:55"},
            {"name": "veth9999", "mac": "55:44:33:22:11:11"},
            {"name": "net1", "mac": "99:88:77:66:55:44", "sandbox": "/var/run/netns/blue"},
        ],
        "ips": [{"version": "4", **address} if version < "1.0.0" else address],
        "routes": [{"dst": "192.168.0.0/16", "gw": "10.1.0.1"}],
        "dns": {"nameservers": ["10.9.9.9"], "search": ["a.b"]},
    }


@pytest.mark.parametrize("version", GOLDEN_VERSIONS)
def test_add_answers_exactly_what_its_version_writes(version: str) -> None:
    assert answered(version, dns=DNS) == golden(version)


@pytest.mark.parametrize("version", GOLDEN_VERSIONS)
def test_the_golden_answers_are_what_the_specification_allows(version: str) -> None:
    assert success_faults(golden(version), version) == []


def test_0_3_0_answers_as_0_3_1_which_only_mended_a_typing_error() -> None:
    assert answered("0.3.0", dns=DNS) == golden("0.3.1") | {"cniVersion": "0.3.0"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_address_is_the_pods_own_interface_which_names_its_namespace(version: str) -> None:
    said = answered(version)
    (address,) = said["ips"]
    own = said["interfaces"][address["interface"]]
    assert (own["name"], own["sandbox"]) == ("eth0", "/var/run/netns/blue")
    assert [each["name"] for each in said["interfaces"] if each.get("sandbox")] == ["eth0"]
    assert address["address"] == "10.32.1.5/32"
    assert address["gateway"] == "10.32.1.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_versions_that_know_them_have_an_mtu_and_an_addresss_version(version: str) -> None:
    said = answered(version)
    assert [each.get("mtu") for each in said["interfaces"]] == [1376 if version == "1.1.0" else None] * 3
    assert [each.get("version") for each in said["ips"]] == ["4" if version < "1.0.0" else None]


@pytest.mark.parametrize("version", VERSIONS)
def test_routes_are_those_that_were_asked_for_over_the_gateway(version: str) -> None:
    def hop(target: str) -> dict[str, str]:
        return {"dst": target, "gw": "10.32.1.1"}

    assert answered(version)["routes"] == [hop("0.0.0.0/0")]
    routes = [{"dst": "192.168.0.0/16"}, {"dst": "10.0.0.0/16"}]
    said = answered(version, ipam={"routes": routes})
    assert said["routes"] == [hop("10.0.0.0/16"), hop("10.32.0.0/12"), hop("192.168.0.0/16")]
    assert answered(version, ipam={"routes": []})["routes"] == [hop("10.32.0.0/12")]


@pytest.mark.parametrize("version", VERSIONS)
def test_dns_is_empty_where_nobody_has_said_any(version: str) -> None:
    assert answered(version)["dns"] == {}
    whole = {"nameservers": ["10.1.0.1", "fd00::1"], "domain": "a.b", "search": ["a.b"], "options": ["ndots:5"]}
    assert answered(version, dns=whole)["dns"] == whole


# --- after other plugins ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_before_comes_first_and_indices_are_counted_on(version: str) -> None:
    previous, alone = previous_of(version), answered(version)
    said = answered(version, prevResult=previous)
    assert said["cniVersion"] == version
    assert said["interfaces"] == previous["interfaces"] + alone["interfaces"]
    assert said["ips"] == [previous["ips"][0], alone["ips"][0] | {"interface": 5}]
    assert said["routes"] == previous["routes"] + alone["routes"]
    assert said["dns"] == previous["dns"]


@pytest.mark.parametrize("version", VERSIONS)
def test_dns_of_this_network_replaces_what_was_before(version: str) -> None:
    assert answered(version, prevResult=previous_of(version), dns=DNS)["dns"] == DNS
    assert answered(version, prevResult=previous_of(version), dns={})["dns"] == previous_of(version)["dns"]


@pytest.mark.parametrize(
    "previous", [{}, {"interfaces": None, "ips": None, "routes": None, "dns": None}, {"interfaces": [], "ips": []}]
)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_result_before_changes_nothing(version: str, previous: dict[str, Any]) -> None:
    assert answered(version, prevResult={"cniVersion": version} | previous) == answered(version)


def test_what_was_before_may_have_all_keys_of_its_version() -> None:
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "vhost", "socketPath": "/run/vhost.sock", "sandbox": "/var/run/netns/blue", "mtu": 9000},
            {"name": "vf", "mac": "00:11:22:33:44:66", "pciID": "0000:04:00.5", "mtu": 0},
        ],
        "ips": [{"address": "fd00::5/64", "gateway": "fd00::1", "interface": 0}],
        "routes": [
            {"dst": "::/0", "gw": "fd00::1", "mtu": 1280, "advmss": 1220, "priority": 5, "table": 100, "scope": 253}
        ],
    }
    said = answered("1.1.0", prevResult=previous)
    assert said["interfaces"][:2] == previous["interfaces"]
    assert said["ips"][0] == previous["ips"][0]
    assert said["ips"][1]["interface"] == 4
    assert said["routes"][0] == previous["routes"][0]


def test_a_second_interface_of_a_container_stands_after_its_first() -> None:
    first = answered("1.1.0")
    request = asked("1.1.0", {"CNI_IFNAME": "net1"}, prevResult=first)
    said = added(request, POD)
    assert success_faults(said, "1.1.0") == []
    assert [said["interfaces"][each["interface"]]["name"] for each in said["ips"]] == ["eth0", "net1"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_leaves_what_was_before_as_it_was(version: str) -> None:
    request = asked(version, prevResult=previous_of(version))
    before = copy.deepcopy(request)
    assert added(request, POD) == added(request, POD)
    assert request == before


@given(st.sampled_from(VERSIONS), st.integers(0, 5), st.booleans())
def test_an_address_always_points_at_the_pods_own_interface(version: str, before: int, listed: bool) -> None:
    previous: dict[str, Any] = {"cniVersion": version, "ips": []}
    if listed:
        previous["interfaces"] = [{"name": f"veth{n}"} for n in range(before)]
    said = answered(version, prevResult=previous)
    assert said["interfaces"][said["ips"][-1]["interface"]]["name"] == "eth0"


@pytest.mark.parametrize(
    "dns", [{"nameservers": "10.1.0.1"}, {"nameservers": ["no address"]}, {"search": [1]}], ids=str
)
def test_dns_that_no_runtime_could_read_never_reaches_it(dns: dict[str, Any]) -> None:
    with pytest.raises(CniError, match="dns") as caught:
        asked("1.1.0", dns=dns)
    assert caught.value.code == errors.INVALID_NETWORK


# --- errors ----------------------------------------------------------------------------------------------------------
def test_an_error_says_its_code_and_message_and_details_where_there_are_any() -> None:
    said = failed(CniError(7, "Invalid Configuration", "Network 192.168.0.0/31 too small to allocate from."), "1.1.0")
    assert said == {
        "cniVersion": "1.1.0",
        "code": 7,
        "msg": "Invalid Configuration",
        "details": "Network 192.168.0.0/31 too small to allocate from.",
    }
    assert failed(CniError(11, "busy"), "0.4.0") == {"cniVersion": "0.4.0", "code": 11, "msg": "busy"}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_is_in_the_version_that_was_spoken(version: str) -> None:
    assert failed(CniError(7, "a"), version)["cniVersion"] == version


@pytest.mark.parametrize("version", ["", "0.1.0", "0.2.0", "2.0.0", "x", "None"])
def test_an_error_about_an_unknown_version_is_in_the_newest_that_is_known(version: str) -> None:
    assert failed(CniError(1, "a"), version)["cniVersion"] == VERSIONS[-1]


def test_the_codes_are_those_of_the_specification() -> None:
    known = (errors.INCOMPATIBLE_VERSION, errors.UNSUPPORTED_FIELD, errors.UNKNOWN_CONTAINER)
    since_1_0 = (errors.INVALID_ENVIRONMENT, errors.IO_FAILURE, errors.UNDECODABLE, errors.INVALID_NETWORK)
    assert (*known, *since_1_0, errors.TRY_AGAIN, errors.NOT_AVAILABLE) == (1, 2, 3, 4, 5, 6, 7, 11, 50)
    assert errors.NOT_AS_IT_WAS >= 100


REFUSALS: tuple[tuple[dict[str, str], dict[str, Any]], ...] = (
    ({"CNI_COMMAND": "X"}, {}),
    ({"CNI_CONTAINERID": ""}, {}),
    ({"CNI_IFNAME": "a/b"}, {}),
    ({"CNI_COMMAND": "CHECK"}, {}),
    ({"CNI_COMMAND": "GC"}, {}),
    ({"CNI_COMMAND": "STATUS"}, {"name": ""}),
    ({}, {"name": None}),
    ({}, {"cniVersion": "9"}),
    ({}, {"mtu": "x"}),
    ({}, {"ipMasq": True}),
    ({}, {"ipam": {"type": "host-local"}}),
    ({}, {"ipam": {"subnet": "x"}}),
    ({}, {"prevResult": []}),
)


@pytest.mark.parametrize(("environment", "keys"), REFUSALS, ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_refusal_is_an_error_that_the_specification_knows(
    version: str, environment: dict[str, str], keys: dict[str, Any]
) -> None:
    with pytest.raises(CniError) as caught:
        asked(version, environment, **keys)
    spoken = VERSIONS[-1] if keys.get("cniVersion") == "9" else version
    said = failed(caught.value, keys.get("cniVersion", version))
    assert error_faults(json.loads(json.dumps(said)), spoken) == []


# --- the tables themselves -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("version", "change", "fault"),
    [
        ("1.1.0", {"cniVersion": "1.0.0"}, "result.cniVersion is '1.0.0'"),
        ("1.1.0", {"code": 0}, "result has code"),
        ("1.0.0", {"interfaces": [{"name": "a", "mtu": 1}] * 3}, "interface has mtu"),
        ("1.1.0", {"interfaces": [{"mac": "00:11:22:33:44:55"}] * 3}, "interface has no name"),
        ("1.1.0", {"interfaces": []}, "ip.interface is 2"),
        ("0.4.0", {"ips": [{"address": "10.0.0.1/8", "interface": 0}]}, "ip has no version"),
        ("1.0.0", {"ips": [{"version": "4", "address": "10.0.0.1/8", "interface": 0}]}, "ip has version"),
        ("1.1.0", {"ips": [{"address": "10.0.0.1", "interface": 0}]}, "ip.address is '10.0.0.1'"),
        ("1.0.0", {"routes": [{"dst": "0.0.0.0/0", "mtu": 1}]}, "route has mtu"),
        ("1.1.0", {"dns": []}, "result.dns is []"),
        ("1.1.0", {"dns": {"search": "a"}}, "dns.search is 'a'"),
    ],
)
def test_the_tables_find_what_a_version_does_not_allow(version: str, change: dict[str, Any], fault: str) -> None:
    assert fault in success_faults(golden(version) | change, version)
