"""What a runtime asks, judged as the CNI specification says: every verb, version, variable, key and error code."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunrouter.cni.errors import CniError, of
from tunrouter.cni.request import (
    ATTACHMENTS,
    MAX_ID,
    VALID_ATTACHMENTS,
    VERSIONS,
    Local,
    Request,
    network_of,
    pod_name,
    read,
)
from tunrouter.errors import AgentError, ConfigError, HostError
from tunrouter.host.plan import check_device_name
from tunrouter.host.pods import MAX_NAME

LOCAL = Local(range=IPv4Network("10.32.0.0/12"), mtu=1376, bridge="tunrouter0", gateway=IPv4Address("10.32.1.1"))
POD = {"CNI_CONTAINERID": "0123abcd", "CNI_NETNS": "/run/netns/blue", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
ATTACHMENT_VERBS = ("ADD", "DEL", "CHECK")
PREVIOUS: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "00:11:22:33:44:55"},
        {"name": "veth3243", "mac": "55:44:33:22:11:11"},
        {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": "/var/run/netns/blue"},
    ],
    "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}
INCOMPATIBLE, UNSUPPORTED, ENVIRONMENT, UNDECODABLE, NETWORK = 1, 2, 4, 6, 7


def config_of(verb: str, **keys: Any) -> dict[str, Any]:
    """The least that this verb needs in the newest version, and these keys; None takes one away."""
    config: dict[str, Any] = {"cniVersion": "1.1.0", "name": "dbnet", "type": "tunrouter-cni"}
    if verb == "CHECK":
        config["prevResult"] = PREVIOUS
    if verb == "GC":
        config[VALID_ATTACHMENTS] = []
    return config | keys


def ask(
    verb: str,
    config: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    *,
    local: Local = LOCAL,
    **keys: Any,
) -> Request:
    said = config_of(verb, **keys) if config is None else config
    variables = POD if environment is None else environment
    return read({"CNI_COMMAND": verb, **variables}, json.dumps(said).encode(), local)


def refused(
    verb: str,
    config: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    *,
    local: Local = LOCAL,
    **keys: Any,
) -> CniError:
    with pytest.raises(CniError) as caught:
        ask(verb, config, environment, local=local, **keys)
    return caught.value


def one(key: str, value: Any) -> dict[str, Any]:
    return {key: value}


def without(keys: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in names}


# --- verbs -----------------------------------------------------------------------------------------------------------
def test_add_is_read_whole() -> None:
    assert ask("ADD") == Request(
        command="ADD",
        version="1.1.0",
        network="dbnet",
        container="0123abcd",
        netns="/run/netns/blue",
        interface="eth0",
        address=None,
        mtu=0,
        routes=(IPv4Network("0.0.0.0/0"),),
        dns=None,
        previous=None,
        valid=frozenset(),
    )
    assert ask("ADD").name == "dbnet/0123abcd"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_read_in_the_newest_version(verb: str) -> None:
    request = ask(verb)
    assert (request.command, request.version, request.network) == (verb, "1.1.0", "dbnet")
    assert bool(request.container) == (verb in ATTACHMENT_VERBS)


@pytest.mark.parametrize("verb", ["", "add", "ADD ", "DELETE", "GET", "UPDATE", "ADD\0", "\N{SNOWMAN}"])
def test_a_command_that_is_none_is_an_error_that_names_the_variable(verb: str) -> None:
    error = refused(verb, config_of("ADD"))
    assert error.code == ENVIRONMENT
    assert "CNI_COMMAND" in error.message


def test_a_missing_command_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(CniError, match="CNI_COMMAND") as caught:
        read(POD, json.dumps(config_of("ADD")).encode(), LOCAL)
    assert caught.value.code == ENVIRONMENT


# --- versions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", VERBS)
def test_each_version_has_the_verbs_that_its_specification_has(verb: str, version: str) -> None:
    since = {"ADD": 0, "DEL": 0, "CHECK": VERSIONS.index("0.4.0")}.get(verb, VERSIONS.index("1.1.0"))
    if VERSIONS.index(version) >= since:
        assert ask(verb, cniVersion=version).version == version
    else:
        error = refused(verb, cniVersion=version)
        assert error.code == INCOMPATIBLE
        assert verb in error.message
        assert version in error.message


@pytest.mark.parametrize(
    "version", ["0.1.0", "0.2.0", "0.3.2", "1.0.1", "1.2.0", "2.0.0", "1.1", "v1.1.0", " 1.1.0", ""]
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_version_that_is_not_supported_is_named(verb: str, version: str) -> None:
    error = refused(verb, cniVersion=version)
    assert error.code == INCOMPATIBLE
    assert repr(version) in error.message
    assert all(known in error.details for known in VERSIONS)


@pytest.mark.parametrize("verb", VERBS)
def test_no_version_means_the_first_which_is_not_supported(verb: str) -> None:
    error = refused(verb, without(config_of(verb), "cniVersion"))
    assert error.code == INCOMPATIBLE
    assert "0.1.0" in error.message


@pytest.mark.parametrize("version", [1.1, 1, True, [], ["1.1.0"], {}, {"cniVersion": "1.1.0"}])
def test_a_version_that_is_no_text_cannot_be_decoded(version: Any) -> None:
    assert refused("ADD", cniVersion=version).code == UNDECODABLE


# --- required variables ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize(
    ("verb", "variable"),
    [
        *((verb, variable) for verb in ("ADD", "CHECK") for variable in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
    ],
)
def test_a_required_variable_that_is_missing_is_named(verb: str, variable: str, value: str | None) -> None:
    environment = without(POD, variable) | ({} if value is None else {variable: value})
    error = refused(verb, environment=environment)
    assert error.code == ENVIRONMENT
    assert variable in error.message


@pytest.mark.parametrize(
    ("verb", "needed"),
    [
        ("ADD", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
        ("CHECK", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
        ("DEL", ("CNI_CONTAINERID", "CNI_IFNAME")),
    ],
)
def test_all_variables_that_are_missing_are_named_at_once(verb: str, needed: tuple[str, ...]) -> None:
    error = refused(verb, environment={})
    assert error.code == ENVIRONMENT
    assert [variable for variable in needed if variable not in error.message] == []


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_gc_and_status_need_nothing_of_a_container(verb: str) -> None:
    assert ask(verb, environment={}) == ask(verb, environment={"CNI_PATH": "/opt/cni/bin"})
    assert ask(verb, environment=POD | {"CNI_CONTAINERID": "../..", "CNI_IFNAME": "a/b"}).container == ""


def test_del_needs_no_namespace_for_it_may_be_gone() -> None:
    assert ask("DEL", environment=without(POD, "CNI_NETNS")).netns == ""
    assert ask("DEL", environment=POD | {"CNI_NETNS": ""}).netns == ""
    assert ask("DEL").netns == "/run/netns/blue"


def test_variables_that_are_not_ours_are_left_alone() -> None:
    others = {"PATH": "\0", "CNI_NETNS_OVERRIDE": "1", "CNI_PATH": "", "CNI_FUTURE": "{}", "cni_ifname": "a/b"}
    assert ask("ADD", environment=POD | others) == ask("ADD")


# --- containers, interfaces, namespaces ------------------------------------------------------------------------------
@pytest.mark.parametrize("container", ["a", "9", "A.b_c-D", "a" * MAX_ID, "0" * 64, "a.", "a..b", "1-"])
@pytest.mark.parametrize("verb", ATTACHMENT_VERBS)
def test_a_container_may_be_called_as_the_specification_says(verb: str, container: str) -> None:
    assert ask(verb, environment=POD | {"CNI_CONTAINERID": container}).container == container


HOSTILE_INTERFACES = (
    *(".", "..", "a/b", "/", "a:b", "a b", " ", "a\tb", "a\n", "\n", "a\0", "\0", "a\x7f", "\x1b[2J", "a" * 16),
    *("\u00e9" * 8, "\u00a0", "\u2003", "a" * 100_000),
)
UNWELCOME_INTERFACES = ("eth\u00e9", "\U0001f600", 'a"b', "a'b")
"""The kernel could have them."""
HOSTILE_IDS = (
    *("../../etc/passwd", "..", ".", "-rf", "_a", ".hidden", "a/b", "a\\b", "a b", " a", "a\n", "\na", "a\0b", "a;b"),
    *("a=b", "a:b", "a%2f", "a'b", 'a"b', "\u00e9", "a\u00e9", "\u0661", "a\u200b", "\U0001f600", "a\u2028"),
)


@pytest.mark.parametrize("container", HOSTILE_IDS, ids=ascii)
@pytest.mark.parametrize("verb", ATTACHMENT_VERBS)
def test_a_hostile_container_id_is_refused(verb: str, container: str) -> None:
    error = refused(verb, environment=POD | {"CNI_CONTAINERID": container})
    assert error.code == ENVIRONMENT
    assert "CNI_CONTAINERID" in error.message


@pytest.mark.parametrize("length", [MAX_ID + 1, 1000, 1 << 17])
def test_an_id_that_an_alias_cannot_hold_is_refused_in_few_words(length: int) -> None:
    error = refused("ADD", environment=POD | {"CNI_CONTAINERID": "a" * length})
    assert error.code == ENVIRONMENT
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CNI_CONTAINERID", "a" * (MAX_ID + 1)), *(("CNI_IFNAME", name) for name in UNWELCOME_INTERFACES)],
    ids=lambda text: ascii(text[:15]),
)
def test_what_add_refused_though_the_specification_allows_it_can_be_deleted(variable: str, value: str) -> None:
    assert refused("ADD", environment=POD | {variable: value}).code == ENVIRONMENT
    assert ask("DEL", environment=POD | {variable: value}).command == "DEL"


@pytest.mark.parametrize("interface", ["eth0", "e", "a" * 15, "net-1", "net_1", "eth0.100", "...", "A@b", "-x"])
@pytest.mark.parametrize("verb", ATTACHMENT_VERBS)
def test_an_interface_may_be_called_what_the_kernel_can_call_it(verb: str, interface: str) -> None:
    assert ask(verb, environment=POD | {"CNI_IFNAME": interface}).interface == interface


@pytest.mark.parametrize("interface", HOSTILE_INTERFACES, ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize("verb", ATTACHMENT_VERBS)
def test_a_hostile_interface_is_refused(verb: str, interface: str) -> None:
    error = refused(verb, environment=POD | {"CNI_IFNAME": interface})
    assert error.code == ENVIRONMENT
    assert "CNI_IFNAME" in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize("interface", ["eth%d", "net%s", "eth+", *(f"a{chr(code)}b" for code in range(0x20, 0x7F))])
def test_an_interface_that_the_host_would_not_make_is_an_invalid_variable(interface: str) -> None:
    try:
        check_device_name(interface)
    except ConfigError:
        assert refused("ADD", environment=POD | {"CNI_IFNAME": interface}).code == ENVIRONMENT
    else:
        assert ask("ADD", environment=POD | {"CNI_IFNAME": interface}).interface == interface


def test_the_longest_network_and_container_make_a_pods_name_that_the_host_takes() -> None:
    assert len(pod_name("a" * MAX_ID, "b" * MAX_ID)) <= MAX_NAME


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_COMMAND"])
def test_a_lone_surrogate_in_a_variable_is_refused(variable: str) -> None:
    environment = {"CNI_COMMAND": "ADD", **POD, variable: "a\ud800"}
    with pytest.raises(CniError, match=variable) as caught:
        read(environment, json.dumps(config_of("ADD")).encode(), LOCAL)
    assert caught.value.code == ENVIRONMENT


@pytest.mark.parametrize("netns", ["/run/netns/\0", "/" + "a" * 4096])
@pytest.mark.parametrize("verb", ATTACHMENT_VERBS)
def test_a_namespace_that_is_no_path_is_refused(verb: str, netns: str) -> None:
    error = refused(verb, environment=POD | {"CNI_NETNS": netns})
    assert error.code == ENVIRONMENT
    assert "CNI_NETNS" in error.message


@pytest.mark.parametrize(
    "netns", ["/run/netns/a b", "/proc/1/ns/net", "/" + "a" * 4095, "/run/netns/\u00e9", "relative"]
)
def test_a_namespace_is_taken_as_it_is_said(netns: str) -> None:
    assert ask("ADD", environment=POD | {"CNI_NETNS": netns}).netns == netns


# --- decoding --------------------------------------------------------------------------------------------------------
GARBAGE = {
    "nothing": b"",
    "blank": b" \n",
    "binary": bytes(range(256)),
    "half": b'{"cniVersion": "1.1.0"',
    "two": b"{}{}",
    "trailing": b"{},",
    "single quotes": b"{'name': 'a'}",
    "comment": b'{"name": "a" /* */}',
    "not a number": b'{"mtu": NaN}',
    "infinity": b'{"mtu": Infinity}',
    "bad utf-8": b'{"name": "\xff\xfe"}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "utf-16": '{"name": "a"}'.encode("utf-16"),
    "nul": b"\0",
    "huge number": b'{"mtu": ' + b"9" * 5000 + b"}",
    "deep list": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "deep value": b'{"cniVersion":"1.1.0","name":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_json_cannot_be_decoded(verb: str, garbage: bytes) -> None:
    with pytest.raises(CniError) as caught:
        read({"CNI_COMMAND": verb, **POD}, garbage, LOCAL)
    assert caught.value.code == UNDECODABLE
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("other", [b"null", b"[]", b'[{"name":"a"}]', b'"text"', b"1", b"-1.5", b"true", b"false"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_object_cannot_be_decoded(verb: str, other: bytes) -> None:
    with pytest.raises(CniError, match="no JSON object") as caught:
        read({"CNI_COMMAND": verb, **POD}, other, LOCAL)
    assert caught.value.code == UNDECODABLE


def test_a_huge_configuration_of_other_keys_is_read() -> None:
    others: dict[str, Any] = {f"key{n}": n for n in range(10_000)}
    assert ask("ADD", keyA=["x" * 1000] * 1000, **others) == ask("ADD")


# --- the network's name ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a", "dbnet", "k8s-pod-network", "net.1_x", "9", "a" * MAX_ID])
@pytest.mark.parametrize("verb", VERBS)
def test_a_network_may_be_called_as_the_specification_says(verb: str, name: str) -> None:
    assert ask(verb, name=name).network == name


@pytest.mark.parametrize(
    "name",
    ["", *HOSTILE_IDS, None, 0, 1, 1.5, True, False, [], ["a"], {}, {"name": "a"}],
    ids=lambda name: ascii(name)[:30],
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_network_whose_name_is_none_is_invalid(verb: str, name: Any) -> None:
    error = refused(verb, name=name)
    assert error.code == NETWORK
    assert "name" in error.message


def test_a_name_that_is_too_long_for_us_is_refused_by_add_alone() -> None:
    name = "a" * (MAX_ID + 1)
    assert refused("ADD", name=name).code == NETWORK
    for verb in ("DEL", "CHECK", "GC", "STATUS"):
        assert ask(verb, name=name).network == name


@pytest.mark.parametrize("verb", VERBS)
def test_a_network_without_a_name_is_invalid(verb: str) -> None:
    assert refused(verb, without(config_of(verb), "name")).code == NETWORK


@pytest.mark.parametrize(
    ("where", "variables", "keys"),
    [
        ("name", {}, {"name": "-" + "x" * 100_000}),
        ("cniVersion", {}, {"cniVersion": "1" * 100_000}),
        ("CNI_COMMAND", {"CNI_COMMAND": "ADD" * 30_000}, {}),
        ("mtu", {}, {"mtu": "1" * 100_000}),
        ("ipam.subnet", {}, {"ipam": {"subnet": "1" * 100_000}}),
        ("ipam.routes", {}, {"ipam": {"routes": ["1" * 100_000]}}),
        ("runtimeConfig.ips", {}, {"runtimeConfig": {"ips": ["1" * 100_000]}}),
    ],
)
def test_an_error_characterizes_in_a_short_message(where: str, variables: dict[str, str], keys: dict[str, Any]) -> None:
    with pytest.raises(CniError) as caught:
        read({"CNI_COMMAND": "ADD", **POD, **variables}, json.dumps(config_of("ADD", **keys)).encode(), LOCAL)
    assert where in caught.value.message
    assert len(caught.value.message) < 1000


# --- keys that are judged --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mtu", [0, 68, 576, 1280, 1376])
def test_an_mtu_that_fits_is_taken(mtu: int) -> None:
    assert ask("ADD", mtu=mtu).mtu == mtu


@pytest.mark.parametrize(
    "mtu", [1377, 1500, 67, 1, -1, 1 << 64, 10**300, 1376.0, "1376", "", True, False, [], {}, [1376]]
)
def test_an_mtu_that_does_not_fit_is_refused(mtu: Any) -> None:
    error = refused("ADD", mtu=mtu)
    assert error.code == NETWORK
    assert "mtu" in error.message
    assert "1376" in error.details


@pytest.mark.parametrize("value", [True, 1, "true", "false", [0], {"a": 0}])
@pytest.mark.parametrize("key", ["isGateway", "ipMasq"])
def test_what_every_node_does_anyhow_is_not_done_twice(key: str, value: Any) -> None:
    error = refused("ADD", **one(key, value))
    assert error.code == UNSUPPORTED
    assert key in error.message
    assert repr(value) in error.message


@pytest.mark.parametrize("value", [False, None])
@pytest.mark.parametrize("key", ["isGateway", "ipMasq"])
def test_what_is_not_wished_for_is_left_alone(key: str, value: Any) -> None:
    assert ask("ADD", **one(key, value)) == ask("ADD")


def test_hairpin_mode_is_what_pods_have_and_cannot_be_had_without() -> None:
    assert ask("ADD", hairpinMode=True) == ask("ADD")
    error = refused("ADD", hairpinMode=False)
    assert error.code == UNSUPPORTED
    assert "hairpinMode" in error.message
    assert "False" in error.message


def test_only_this_nodes_bridge_may_be_named() -> None:
    assert ask("ADD", bridge="tunrouter0") == ask("ADD")
    for bridge in ("cni0", "", 0, ["tunrouter0"], {"name": "tunrouter0"}):
        error = refused("ADD", bridge=bridge)
        assert error.code == UNSUPPORTED
        assert "bridge" in error.message
        assert repr(bridge) in error.message


@pytest.mark.parametrize(
    "kind", ["host-local", "dhcp", "static", "tunrouter-cni", "../ipam", 1, ["host-local"], {"a": 1}]
)
def test_addresses_are_not_delegated(kind: Any) -> None:
    error = refused("ADD", ipam={"type": kind})
    assert error.code == UNSUPPORTED
    assert "ipam.type" in error.message
    assert repr(kind) in error.message


def test_the_specifications_own_example_is_refused_for_what_it_delegates() -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/16", "gateway": "10.1.0.1"}
    keys: dict[str, Any] = {
        "ipam": ipam,
        "keyA": ["some more", "plugin specific", "configuration"],
        "dns": {"nameservers": ["10.1.0.1"]},
    }
    error = refused("ADD", **keys)
    assert (error.code, error.message) == (UNSUPPORTED, "ipam.type: 'host-local' is not supported")


@pytest.mark.parametrize("key", ["ipam", "dns", "runtimeConfig", "args"])
def test_an_object_may_be_missing_null_or_empty(key: str) -> None:
    assert ask("ADD", **one(key, None)) == ask("ADD", **one(key, {})) == ask("ADD")


@pytest.mark.parametrize("value", ["text", 1, 1.5, True, ["a"], [{}]])
@pytest.mark.parametrize("key", ["ipam", "dns", "runtimeConfig", "args"])
def test_what_should_be_an_object_and_is_none_is_named(key: str, value: Any) -> None:
    error = refused("ADD", **one(key, value))
    assert error.code == NETWORK
    assert key in error.message


@pytest.mark.parametrize("subnet", ["10.32.0.0/12", "10.0.0.0/8", "0.0.0.0/0", None])
def test_a_subnet_that_holds_the_range_is_true_here(subnet: str | None) -> None:
    assert ask("ADD", ipam={"subnet": subnet}) == ask("ADD")


SUBNETS: tuple[Any, ...] = (
    "10.1.0.0/16",
    "10.32.0.0/13",
    "10.48.0.0/12",
    "10.32.0.1/12",
    "10.32.0.0/33",
    "fd00::/8",
    "",
    "x",
    10,
    True,
    [],
)


@pytest.mark.parametrize("subnet", SUBNETS, ids=repr)
def test_another_subnet_is_refused(subnet: Any) -> None:
    error = refused("ADD", ipam={"subnet": subnet})
    assert error.code == NETWORK
    assert "ipam.subnet" in error.message


def test_the_gateway_is_this_nodes_own() -> None:
    assert ask("ADD", ipam={"gateway": "10.32.1.1"}) == ask("ADD", ipam={"gateway": None}) == ask("ADD")
    for gateway in ("10.32.0.1", "", "10.32.1.1/32", "fd00::1", 169869569, True, [], ["10.32.1.1"]):
        error = refused("ADD", ipam={"gateway": gateway})
        assert error.code == NETWORK
        assert "ipam.gateway" in error.message


def routes_of(*given: Any, local: Local = LOCAL) -> list[str]:
    return [str(route) for route in ask("ADD", ipam={"routes": list(given)}, local=local).routes]


def test_no_pod_has_more_routes_than_a_host_can_tell_it_at_once() -> None:
    many = [{"dst": f"10.{number}.0.0/16"} for number in range(129)]
    assert len(ask("ADD", ipam={"routes": many[:128]}).routes) >= 128
    assert refused("ADD", ipam={"routes": many}).code == 7


def test_no_routes_are_a_default_route_and_an_empty_list_is_the_network_itself() -> None:
    assert ask("ADD", ipam={"routes": None}).routes == (IPv4Network("0.0.0.0/0"),)
    assert routes_of() == ["10.32.0.0/12"]


def test_routes_are_in_order_once_and_always_reach_the_network() -> None:
    assert routes_of({"dst": "192.168.0.0/16"}, {"dst": "10.0.0.0/16"}) == [
        "10.0.0.0/16",
        "10.32.0.0/12",
        "192.168.0.0/16",
    ]
    assert routes_of({"dst": "10.32.0.0/12"}, {"dst": "10.32.0.0/12"}) == ["10.32.0.0/12"]
    assert routes_of({"dst": "192.168.0.0/16"}, {"dst": "0.0.0.0/0"}) == ["0.0.0.0/0", "192.168.0.0/16"]


def test_a_route_leads_over_the_bridge_or_is_refused() -> None:
    assert routes_of({"dst": "0.0.0.0/0", "gw": "10.32.1.1"}, {"dst": "0.0.0.0/0", "gw": None}) == ["0.0.0.0/0"]
    for gateway in ("10.32.0.1", "", 0, ["10.32.1.1"], True):
        error = refused("ADD", ipam={"routes": [{"dst": "0.0.0.0/0", "gw": gateway}]})
        assert error.code == UNSUPPORTED
        assert "ipam.routes.gw" in error.message
        assert repr(gateway) in error.message


@pytest.mark.parametrize("routes", [{}, {"dst": "0.0.0.0/0"}, "0.0.0.0/0", 0, 1, True, ""])
def test_routes_that_are_no_list_are_refused(routes: Any) -> None:
    error = refused("ADD", ipam={"routes": routes})
    assert (error.code, error.message) == (NETWORK, "ipam.routes is no list")


@pytest.mark.parametrize("route", [None, "0.0.0.0/0", 0, [], ["0.0.0.0/0"], True])
def test_what_is_no_route_is_refused(route: Any) -> None:
    error = refused("ADD", ipam={"routes": [{"dst": "10.0.0.0/8"}, route]})
    assert error.code == NETWORK
    assert "ipam.routes" in error.message


@pytest.mark.parametrize(
    "target", [None, "", "default", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "::/0", 0, True, [], {}]
)
def test_a_route_to_what_is_no_network_is_refused(target: Any) -> None:
    error = refused("ADD", ipam={"routes": [{"dst": target}]})
    assert error.code == NETWORK
    assert "ipam.routes.dst" in error.message


def test_a_route_without_a_target_is_refused() -> None:
    assert refused("ADD", ipam={"routes": [{}]}).code == NETWORK


@pytest.mark.parametrize(
    ("key", "value"), [("mtu", 1280), ("advmss", 1240), ("priority", 5), ("table", 100), ("scope", 253)]
)
def test_what_a_route_may_say_since_1_1_is_never_dropped_in_silence(key: str, value: int) -> None:
    error = refused("ADD", ipam={"routes": [{"dst": "10.0.0.0/8", key: value}]})
    assert error.code == UNSUPPORTED
    assert key in error.message
    assert str(value) in error.message


def test_gateways_are_not_judged_before_the_node_has_one() -> None:
    local = msgspec.structs.replace(LOCAL, gateway=None)
    assert ask("ADD", ipam={"gateway": "10.99.0.1"}, local=local) == ask("ADD", local=local)
    assert routes_of({"dst": "0.0.0.0/0"}, local=local) == ["0.0.0.0/0"]


# --- dns -------------------------------------------------------------------------------------------------------------
def test_dns_is_handed_on_as_it_is() -> None:
    dns = {"nameservers": ["10.1.0.1", "fd00::1"], "domain": "a.b", "search": ["a.b", "b"], "options": ["ndots:5"]}
    assert ask("ADD", dns=dns).dns == dns
    assert ask("ADD", dns={}).dns is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nameservers", "10.1.0.1"),
        ("nameservers", [10]),
        ("nameservers", [["10.1.0.1"]]),
        ("domain", ["a.b"]),
        ("domain", 1),
        ("search", "a.b"),
        ("search", [None]),
        ("options", {"ndots": 5}),
        ("options", [5]),
    ],
)
def test_dns_of_another_shape_is_refused_before_a_runtime_chokes_on_it(key: str, value: Any) -> None:
    error = refused("ADD", dns={key: value})
    assert error.code == NETWORK
    assert "dns" in error.message


# --- an address of one's own -----------------------------------------------------------------------------------------
CAPABILITY, CONVENTION, VARIABLE = "10.32.1.10", "10.32.1.20", "10.32.1.30"


def wanted(
    capability: Any = None, convention: Any = None, variable: str | None = None, *, verb: str = "ADD"
) -> IPv4Address | None:
    keys: dict[str, Any] = {}
    if capability is not None:
        keys["runtimeConfig"] = {"ips": capability}
    if convention is not None:
        keys["args"] = {"cni": {"ips": convention}}
    environment = POD if variable is None else POD | {"CNI_ARGS": variable}
    return ask(verb, environment=environment, **keys).address


@pytest.mark.parametrize("length", ["", "/32", "/12", "/0"])
def test_an_address_is_wished_for_in_three_ways_with_or_without_a_length(length: str) -> None:
    assert wanted([CAPABILITY + length]) == IPv4Address(CAPABILITY)
    assert wanted(None, [CONVENTION + length]) == IPv4Address(CONVENTION)
    assert wanted(None, None, f"IP={VARIABLE}{length}") == IPv4Address(VARIABLE)


def test_a_capability_comes_before_the_convention_and_that_before_the_variable() -> None:
    variable = f"IP={VARIABLE}"
    assert wanted([CAPABILITY], [CONVENTION], variable) == IPv4Address(CAPABILITY)
    assert wanted([CAPABILITY], None, variable) == IPv4Address(CAPABILITY)
    assert wanted(None, [CONVENTION], variable) == IPv4Address(CONVENTION)
    assert wanted([], [CONVENTION], variable) == IPv4Address(CONVENTION)
    assert wanted([], [], variable) == IPv4Address(VARIABLE)
    assert wanted([], [], "IP=") is None


def test_what_is_overruled_is_not_even_judged() -> None:
    assert wanted([CAPABILITY], ["none"], "IP=none") == IPv4Address(CAPABILITY)
    assert wanted(None, [CONVENTION], "IP=none") == IPv4Address(CONVENTION)


def test_an_overruling_wish_that_cannot_be_had_is_not_passed_over() -> None:
    with pytest.raises(CniError, match=re.escape("runtimeConfig.ips")):
        wanted(["none"], [CONVENTION], f"IP={VARIABLE}")


@pytest.mark.parametrize(
    "addresses",
    [
        *(["10.32.1.5", "10.32.1.6"], ["10.32.1.5", "10.32.1.5"], ["fd00::5"], ["10.32.1.5", "fd00::5"], [""], ["x"]),
        *(["10.32.1"], ["10.32.1.5/33"], ["10.32.1.05"], [" 10.32.1.5"], ["10.32.1.5 "], ["10.32.1.256"], [None], [[]]),
        *([{}], [["10.32.1.5"]], [1.5], {"a": "10.32.1.5"}, "x", "\u0661\u0660.32.1.5"),
    ],
    ids=ascii,
)
def test_what_is_not_one_address_is_refused_wherever_it_stands(addresses: Any) -> None:
    for where, keys in (
        ("runtimeConfig.ips", {"runtimeConfig": {"ips": addresses}}),
        ("args.cni.ips", {"args": {"cni": {"ips": addresses}}}),
    ):
        error = refused("ADD", **keys)
        assert error.code == NETWORK
        assert where in error.message


@pytest.mark.parametrize("number", [0, 1, 169869578, (1 << 32) - 1, 1 << 32, -1, 1 << 63, True, False], ids=repr)
@pytest.mark.parametrize("listed", [True, False])
def test_a_number_is_no_address(number: Any, listed: bool) -> None:
    addresses = [number] if listed else number
    assert refused("ADD", runtimeConfig={"ips": addresses}).code == NETWORK
    assert refused("ADD", args={"cni": {"ips": addresses}}).code == NETWORK


@pytest.mark.parametrize(
    "arguments", ["IP=x", "IP=10.32.1.5,10.32.1.6", "IP=fd00::5", "IP=0", "IP=169869578", "IP= ", "IP=\0"]
)
def test_a_variable_that_says_no_address_is_named(arguments: str) -> None:
    error = refused("ADD", environment=POD | {"CNI_ARGS": arguments})
    assert error.code == NETWORK
    assert "CNI_ARGS" in error.message


@pytest.mark.parametrize(
    "arguments",
    [
        f"IP={VARIABLE}",
        f"FOO=BAR;IP={VARIABLE};ABC=123",
        f"IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;IP={VARIABLE};K8S_POD_INFRA_CONTAINER_ID=c",
        f";;IP={VARIABLE};",
        f"=;==;a==b;IP={VARIABLE}",
    ],
)
def test_arguments_that_are_not_ours_are_left_alone(arguments: str) -> None:
    assert wanted(variable=arguments) == IPv4Address(VARIABLE)


@pytest.mark.parametrize("arguments", ["", ";", "=", "IP", "IP=", "ip=x", "XIP=x", "FOO=IP=x", "garbage", "\0;\u00e9"])
def test_arguments_without_an_address_wish_for_none(arguments: str) -> None:
    assert wanted(variable=arguments) is None


@pytest.mark.parametrize("verb", ["DEL", "CHECK"])
def test_wishes_are_judged_only_when_they_could_be_granted(verb: str) -> None:
    keys: dict[str, Any] = {
        "mtu": "x",
        "ipMasq": True,
        "bridge": "cni0",
        "ipam": {"type": "host-local"},
        "args": 1,
        "dns": 1,
    }
    request = ask(verb, environment=POD | {"CNI_ARGS": "IP=x"}, **keys, runtimeConfig=[])
    assert (request.address, request.mtu, request.dns) == (None, 0, None)


def test_keys_that_are_not_ours_are_left_alone() -> None:
    others: dict[str, Any] = {
        "capabilities": {"ips": True},
        "runtimeConfig": {"mac": 1, "portMappings": {}, "future": [None]},
        "args": {"labels": {"appVersion": "1.0"}, "cni": {"labels": [{"key": "app", "value": "myapp"}]}},
        "cni.dev/future": [],
        VALID_ATTACHMENTS: "only of GC",
        "keyA": None,
    }
    assert ask("ADD", **others) == ask("ADD")


# --- prevResult ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_what_was_before_is_kept_as_it_was_said(verb: str) -> None:
    assert ask(verb, prevResult=PREVIOUS).previous == PREVIOUS
    assert ask(verb, prevResult={}).previous == {}
    odd: dict[str, Any] = {"interfaces": None, "ips": [], "extra": 1}
    assert ask(verb, prevResult=odd).previous == odd


def test_add_may_be_the_first_and_check_never_is() -> None:
    assert ask("ADD", prevResult=None).previous is None
    for config in (config_of("CHECK", prevResult=None), without(config_of("CHECK"), "prevResult")):
        error = refused("CHECK", config)
        assert error.code == NETWORK
        assert "prevResult" in error.message


@pytest.mark.parametrize("previous", ["text", 1, 0, 1.5, True, False, [], [{}]], ids=repr)
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_previous_result_that_is_no_object_is_refused(verb: str, previous: Any) -> None:
    error = refused(verb, prevResult=previous)
    assert error.code == NETWORK
    assert "prevResult" in error.message


@pytest.mark.parametrize("listed", ["text", 1, True, {"a": 1}, [None], ["a"], [1], [[]], [{}, None]], ids=repr)
@pytest.mark.parametrize("key", ["interfaces", "ips", "routes"])
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_lists_of_a_previous_result_hold_objects(verb: str, key: str, listed: Any) -> None:
    error = refused(verb, prevResult=PREVIOUS | {key: listed})
    assert error.code == NETWORK
    assert f"prevResult.{key}" in error.message


@pytest.mark.parametrize("dns", ["text", 1, True, ["10.1.0.1"]], ids=repr)
def test_dns_of_a_previous_result_is_an_object(dns: Any) -> None:
    error = refused("ADD", prevResult=PREVIOUS | {"dns": dns})
    assert error.code == NETWORK
    assert "prevResult.dns" in error.message


@pytest.mark.parametrize(
    "previous", [None, {}, PREVIOUS, "text", 1, [], {"interfaces": "text"}], ids=lambda p: repr(p)[:20]
)
def test_del_is_done_whatever_was_before(previous: Any) -> None:
    assert ask("DEL", prevResult=previous) == ask("DEL")


# --- GC --------------------------------------------------------------------------------------------------------------
def test_gc_is_told_who_lives() -> None:
    listed = [
        {"containerID": "a", "ifname": "eth0"},
        {"containerID": "a", "ifname": "net1", "future": 1},
        {"containerID": "a", "ifname": "eth0"},
    ]
    assert ask("GC", **one(VALID_ATTACHMENTS, listed)).valid == {("a", "eth0"), ("a", "net1")}
    assert ask("GC").valid == frozenset()


def test_null_is_a_list_without_anybody() -> None:
    assert ask("GC", **one(VALID_ATTACHMENTS, None)).valid == frozenset()


def test_the_name_that_the_text_of_1_1_0_gives_the_list_is_understood() -> None:
    keys = without(config_of("GC"), VALID_ATTACHMENTS) | {ATTACHMENTS: [{"containerID": "a", "ifname": "eth0"}]}
    assert ask("GC", keys).valid == {("a", "eth0")}


@pytest.mark.parametrize("listed", [{}, "text", "", 0, 1, True, False, {"containerID": "a", "ifname": "eth0"}])
def test_gc_without_its_list_collects_nobody(listed: Any) -> None:
    error = refused("GC", **one(VALID_ATTACHMENTS, listed))
    assert error.code == NETWORK
    assert VALID_ATTACHMENTS in error.message
    assert refused("GC", without(config_of("GC"), VALID_ATTACHMENTS)).code == NETWORK


@pytest.mark.parametrize(
    "each",
    [None, "a", 1, [], ["a", "eth0"], {"containerID": 1, "ifname": "eth0"}, {"containerID": "a", "ifname": None}],
    ids=repr,
)
def test_gc_refuses_a_list_that_it_cannot_read(each: Any) -> None:
    assert refused("GC", **one(VALID_ATTACHMENTS, [{"containerID": "b", "ifname": "eth0"}, each])).code == NETWORK


@pytest.mark.parametrize(
    "each", [{}, {"containerID": "a"}, {"ifname": "eth0"}, {"containerId": "a", "ifName": "eth0"}], ids=repr
)
def test_gc_refuses_who_is_named_by_half_lest_he_be_collected(each: Any) -> None:
    assert refused("GC", **one(VALID_ATTACHMENTS, [each])).code == NETWORK


# --- other errors ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("a", "b"), 7), (AgentError("a", "b"), 11), (HostError("a", "b"), 5)]
)
def test_who_is_at_fault_decides_the_code(error: ConfigError | AgentError | HostError, code: int) -> None:
    said = of(error)
    assert (said.code, said.message, said.details) == (code, "a", "b")


# --- anything --------------------------------------------------------------------------------------------------------
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.sampled_from(
        ["eth0", "a", "10.32.1.5", "10.0.0.0/8", "1.1.0", "0.4.0", "dbnet", "tunrouter0", "IP=10.32.1.5", ""]
    ),
)
WORDS = TEXTS.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
LISTS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"containerID": JSON, "ifname": JSON, "dst": JSON, "gw": JSON, "address": JSON, "name": JSON}
    )
    | JSON,
    max_size=3,
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "cniVersion": st.sampled_from(VERSIONS) | JSON,
        "name": st.just("dbnet") | JSON,
        "mtu": JSON,
        "hairpinMode": JSON,
        "isGateway": JSON,
        "ipMasq": JSON,
        "bridge": JSON,
        "dns": JSON,
        "ipam": st.fixed_dictionaries(
            {}, optional={"type": JSON, "subnet": JSON, "gateway": JSON, "routes": LISTS | JSON}
        )
        | JSON,
        "runtimeConfig": st.fixed_dictionaries({}, optional={"ips": st.lists(JSON, max_size=2) | JSON}) | JSON,
        "args": st.fixed_dictionaries({}, optional={"cni": st.fixed_dictionaries({}, optional={"ips": JSON}) | JSON})
        | JSON,
        "prevResult": st.fixed_dictionaries(
            {}, optional={"ips": LISTS, "interfaces": LISTS, "routes": LISTS, "dns": JSON}
        )
        | JSON,
        VALID_ATTACHMENTS: LISTS | JSON,
    },
)
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={
        "CNI_COMMAND": st.sampled_from(VERBS) | TEXTS,
        "CNI_CONTAINERID": st.just("a") | TEXTS,
        "CNI_NETNS": TEXTS,
        "CNI_IFNAME": st.just("eth0") | TEXTS,
        "CNI_ARGS": TEXTS,
    },
)


def judged(environment: dict[str, str], config: bytes) -> Request | CniError:
    asked: Request | CniError
    try:
        asked = read(environment, config, LOCAL)
    except CniError as error:
        asked = error
    if isinstance(asked, CniError):
        assert asked.code in {INCOMPATIBLE, UNSUPPORTED, ENVIRONMENT, UNDECODABLE, NETWORK}
        assert asked.message
    return asked


@given(ENVIRONMENTS, CONFIGS | JSON)
def test_any_json_and_any_environment_is_a_request_or_an_error_of_the_specification(
    environment: dict[str, str], config: Any
) -> None:
    asked = judged(environment, json.dumps(config, ensure_ascii=False).encode())
    if isinstance(asked, Request) and asked.command in ATTACHMENT_VERBS:
        assert asked.container
        assert asked.interface.isascii()
        assert asked.mtu == 0 or 68 <= asked.mtu <= LOCAL.mtu
        assert all(isinstance(route, IPv4Network) for route in asked.routes)


@given(st.sampled_from(VERBS), CONFIGS)
def test_any_json_of_a_proper_pod_is_a_request_or_an_error_of_the_specification(verb: str, config: Any) -> None:
    judged({"CNI_COMMAND": verb, **POD}, json.dumps({"cniVersion": "1.1.0", "name": "dbnet"} | config).encode())


@given(ENVIRONMENTS, st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error_of_the_specification(environment: dict[str, str], config: bytes) -> None:
    judged(environment, config)


# --- whose sandbox it is ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "pod"),
    [
        ("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=1", "default/web-0"),
        ("K8S_POD_NAME=a.b-c;K8S_POD_NAMESPACE=x", "x/a.b-c"),
        (f"K8S_POD_NAMESPACE=x;K8S_POD_NAME={'a' * 253}", f"x/{'a' * 253}"),
        (f"K8S_POD_NAMESPACE=x;K8S_POD_NAME={'a' * 254}", ""),
        ("K8S_POD_NAMESPACE=x", ""),
        ("K8S_POD_NAMESPACE=;K8S_POD_NAME=web-0", ""),
        ("K8S_POD_NAMESPACE=x;K8S_POD_NAME=a/b", ""),
        ("K8S_POD_NAMESPACE=x;K8S_POD_NAME=a\n", ""),
        ("K8S_POD_NAMESPACE=x;K8S_POD_NAME=Ä", ""),
        ("", ""),
    ],
)
def test_a_pod_of_kubernetes_is_known_by_its_names_where_they_are_some(arguments: str, pod: str) -> None:
    name = ask("ADD").network
    assert ask("ADD", environment=POD | {"CNI_ARGS": arguments}).pod == (f"{name}/{pod}" if pod else "")


@pytest.mark.parametrize(
    ("arguments", "uid"),
    [
        ("K8S_POD_UID=9f1c3a52-6f6e-4f5e-8a39-0c5f4b7f3a11", "9f1c3a52-6f6e-4f5e-8a39-0c5f4b7f3a11"),
        ("IgnoreUnknown=1;K8S_POD_UID=b6a1f0c35d7e4f2a9c8b7a6d5e4f3c2b", "b6a1f0c35d7e4f2a9c8b7a6d5e4f3c2b"),
        (f"K8S_POD_UID={'a' * 64}", "a" * 64),
        (f"K8S_POD_UID={'a' * 65}", ""),
        ("K8S_POD_UID=a b", ""),
        ("K8S_POD_UID=", ""),
        ("", ""),
    ],
)
def test_which_one_of_that_name_it_is_where_that_is_some_id(arguments: str, uid: str) -> None:
    assert ask("ADD", environment=POD | {"CNI_ARGS": arguments}).uid == uid


@pytest.mark.parametrize(
    ("name", "network"),
    [(pod_name("weave", "ab" * 32), "weave"), ("my-net/c.1", "my-net"), ("web", ""), ("a/b/c", ""), ("/c", ""),
     ("weave/", ""), ("a b/c", ""), (f"{'n' * 65}/c", "")],
)  # fmt: skip
def test_a_containers_network_is_in_its_name_if_a_runtime_attached_it(name: str, network: str) -> None:
    assert network_of(name) == network
