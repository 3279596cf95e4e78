"""Weave Net's variables: each has its meaning, or a line that says why it has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_config import Files
from tunrouter.config import Config, Given, Resolved, resolve
from tunrouter.config.model import DEFAULT_FILE
from tunrouter.config.weave import IDLE, VARIABLES
from tunrouter.errors import ConfigError

IN_KUBERNETES = {"TUNROUTER_KUBERNETES": "1"}
ROOT = Path(__file__).parent.parent
EVERYTHING = {
    "IPALLOC_RANGE": "10.40.0.0/16",
    "IPALLOC_INIT": "consensus=3",
    "KUBE_PEERS": "192.0.2.1 192.0.2.2",
    "WEAVE_PASSWORD": "of the variable",
    "WEAVE_MTU": "1300",
    "WEAVE_NO_FASTDP": "1",
    "CONN_LIMIT": "0",
    "EXPECT_NPC": "0",
    "NO_MASQ_LOCAL": "0",
    "HAIRPIN_MODE": "false",
    "IPTABLES_BACKEND": "nft",
    "WEAVE_EXPOSE_IP": "10.40.0.1",
    "WEAVE_HTTP_ADDR": "127.0.0.1:6789",
    "WEAVE_METRICS_ADDR": "0.0.0.0:6799",
    "WEAVE_STATUS_ADDR": "0.0.0.0:6785",
    "CHECKPOINT_DISABLE": "1",
    "EXTRA_ARGS": "--log-level=warning",
    "DB_PREFIX": "/weavedb/weave-net",
    "HOST_ROOT": "/host",
    "INIT_CONTAINER": "true",
    "WEAVE_CNI_PLUGIN_DIR": "/home/kubernetes/bin",
    "WEAVE_DEBUG": "1",
}
"""All of them, with values that ask for something."""


def configured(environ: Mapping[str, str], flags: Mapping[str, object] | None = None, toml: str = "") -> Resolved:
    return resolve(flags or {}, environ, Files({str(DEFAULT_FILE): toml}), hostname="here")


def with_arguments(text: str, **environ: str) -> Config:
    return configured(IN_KUBERNETES | environ | {"EXTRA_ARGS": text}).config


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        with_arguments(text)
    assert caught.value.fix
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_all_of_them_at_once_in_kubernetes() -> None:
    found = configured(IN_KUBERNETES | EVERYTHING)
    assert found.config == Config(
        name="here",
        kubernetes=True,
        range="10.40.0.0/16",
        peers=("192.0.2.1", "192.0.2.2"),
        secrets=("of the variable",),
        mtu=1300,
        health_addr="127.0.0.1:6789",
        metrics_addr="0.0.0.0:6799",
        log_level="warning",
        expect_npc=False,
    )
    said = {remark.split(" ")[0] for remark in found.remarks}
    assert said == {idle.variable for idle in IDLE if idle.variable}
    assert all(" changes nothing: " in remark and "\n" not in remark for remark in found.remarks)


def test_elsewhere_only_names_that_are_weaves_are_read() -> None:
    found = configured({name: "--frob" if name == "EXTRA_ARGS" else EVERYTHING[name] for name in EVERYTHING})
    assert (found.config.peers, found.config.init_peers, found.config.log_level) == ((), 3, "debug")
    assert found.config.cni_bin_dir == "/home/kubernetes/bin"
    said = {remark.split(" ")[0] for remark in found.remarks}
    assert said == {"WEAVE_NO_FASTDP", "WEAVE_EXPOSE_IP", "WEAVE_STATUS_ADDR"}


def test_what_happens_anyhow_and_what_is_empty_is_not_told() -> None:
    usual = {"EXPECT_NPC": "1", "NO_MASQ_LOCAL": "1", "HAIRPIN_MODE": "True", "WEAVE_STATUS_ADDR": "off"}
    usual["EXTRA_ARGS"] = "--expect-npc --no-masq-local=true"
    assert configured(IN_KUBERNETES | usual).remarks == ()
    assert configured(IN_KUBERNETES | dict.fromkeys(EVERYTHING.keys() - {"WEAVE_PASSWORD"}, "")).remarks == ()


def test_ours_win_over_weaves_and_between_them_stands_extra_args() -> None:
    environ = IN_KUBERNETES | {"WEAVE_MTU": "1300"}
    found = [configured(environ, toml="mtu = 1200")]
    environ |= {"EXTRA_ARGS": "--mtu 1301"}
    found.append(configured(environ))
    environ |= {"TUNROUTER_MTU": "1302"}
    found.append(configured(environ))
    found.append(configured(environ, {"mtu": "1303"}))
    assert [one.config.mtu for one in found] == [1300, 1301, 1302, 1303]
    wheres = [one.origin("mtu").where for one in found]
    assert wheres == ["WEAVE_MTU", "EXTRA_ARGS: --mtu", "TUNROUTER_MTU", "--mtu"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("--mtu=1300", {"mtu": 1300}),
        ("--nickname 'node a'", {"name": "node a"}),
        ("--ipalloc-range=10.40.0.0/16 --weave-bridge=br0", {"range": "10.40.0.0/16", "bridge": "br0"}),
        ("--http-addr=127.0.0.1:7000", {"health_addr": "127.0.0.1:7000"}),
        ("--metrics-addr=127.0.0.1:7000", {"metrics_addr": "127.0.0.1:7000"}),
        ("--no-discovery", {"discovery": False}),
        ("--no-discovery=false", {"discovery": True}),
        ("--expect-npc=false", {"expect_npc": False}),
        ("--expect-npc", {"expect_npc": True}),
        ("-no-bench --silent", {"bench": False, "silent": True}),
        ("192.0.2.1 --port=7000 node-b", {"peers": ("192.0.2.1", "node-b"), "port": 7000}),
        ('--password="with space" --log-level debug', {"secrets": ("with space",), "log_level": "debug"}),
    ],
)
def test_arguments_are_split_as_by_a_shell_and_mean_what_the_flags_mean(text: str, meant: dict[str, object]) -> None:
    config = with_arguments(text)
    assert {name: getattr(config, name) for name in meant} == meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--frob=1", ["EXTRA_ARGS", "unknown flag '--frob'", "neither Weave Net nor tunrouter"]),
        ("--conn-limt=1", ["unknown flag '--conn-limt'", "did you mean --conn-limit?"]),
        ("--no-discovry", ["did you mean --no-discovery?"]),
        ("--mtu", ["EXTRA_ARGS: --mtu", "got nothing", "--mtu=VALUE"]),
        ("--conn-limit", ["EXTRA_ARGS: --conn-limit", "got nothing"]),
        ("--mtu=big", ["EXTRA_ARGS: --mtu", "a number", "'big'", "--mtu=1376"]),
        ("--no-discovery=perhaps", ["EXTRA_ARGS: --no-discovery", "true or false", "'perhaps'"]),
        ("--mtu='1300", ["EXTRA_ARGS", "quot"]),
        ("--password=", ["EXTRA_ARGS: --password", "empty"]),
        ("a/b", ["EXTRA_ARGS", "peers"]),
    ],
)
def test_arguments_that_are_refused(text: str, words: list[str]) -> None:
    said = refusal(text)
    assert all(word in said for word in words), said


def test_flags_of_weaver_that_change_nothing_are_told_with_their_reason() -> None:
    text = (
        "--conn-limit 9 --no-fastdp --no-masq-local=false --dns-ttl=5 -H tcp://127.0.0.1:1 --trusted-subnets=10.0.0.0/8"
    )
    found = configured(IN_KUBERNETES | {"EXTRA_ARGS": text})
    flags = ["conn-limit", "no-fastdp", "no-masq-local", "dns-ttl", "H", "trusted-subnets"]
    assert [remark.partition(" changes")[0] for remark in found.remarks] == [f"EXTRA_ARGS: --{flag}" for flag in flags]
    assert found.config.peers == ()


def test_a_password_in_the_arguments_is_shown_nowhere() -> None:
    for text in (
        "--password=secret1 --frob",
        "--password secret1 --mtu=x",
        "--passwrod=secret1",
        "--password=secret1\t",
    ):
        assert "secret1" not in refusal(text) if text[-1] != "\t" else with_arguments(text).secrets == ("secret1",)
    assert with_arguments("--password=a", WEAVE_PASSWORD="b").secrets == ("a",)
    assert with_arguments("--password=a", TUNROUTER_PASSWORD="c").secrets == ("c",)


def test_a_policy_process_is_expected_in_a_cluster_unless_somebody_says_otherwise() -> None:
    assert configured(IN_KUBERNETES).config.expect_npc
    assert not configured(IN_KUBERNETES | {"EXPECT_NPC": "0"}).config.expect_npc
    assert configured(IN_KUBERNETES | {"EXPECT_NPC": "0", "TUNROUTER_EXPECT_NPC": "1"}).config.expect_npc
    assert configured({"EXPECT_NPC": "nonsense"}).origin("expect_npc").where == "the default", "somebody else's name"
    with pytest.raises(ConfigError, match="EXPECT_NPC"):
        configured(IN_KUBERNETES | {"EXPECT_NPC": "perhaps"})


def test_in_kubernetes_metrics_are_where_weaves_were() -> None:
    found = configured(IN_KUBERNETES)
    assert (found.config.metrics_addr, found.origin("metrics_addr").where) == (":6782", "the default in Kubernetes")
    assert configured(IN_KUBERNETES | {"TUNROUTER_METRICS_ADDR": "off"}).config.metrics_addr == ""
    assert configured({}).config.metrics_addr == "127.0.0.1:6782"


@pytest.mark.parametrize(
    "given",
    [{"TUNROUTER_BLOCK": "10.32.1.0/24"}, {"TUNROUTER_SEED": "a"}, {"TUNROUTER_OBSERVER": "1"},
     {"TUNROUTER_INIT_PEERS": "3"}, {"TUNROUTER_IPALLOC_INIT": "observer"}],
)  # fmt: skip
def test_leases_leave_nothing_to_decide(given: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match=f"TUNROUTER_KUBERNETES: Leases decide .* so {next(iter(given))} decides nothing"
    ):
        configured(IN_KUBERNETES | given)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("https://192.0.2.1:6443/", "https://192.0.2.1:6443"),
        ("api.example:6443", "https://api.example:6443"),
        ("https://api.example", "https://api.example:443"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("[2001:db8:0::1]:6443", "https://[2001:db8::1]:6443"),
    ],
)
def test_where_the_api_is(given: str, canonical: str) -> None:
    assert configured(IN_KUBERNETES | {"TUNROUTER_APISERVER": given}).config.apiserver == canonical


@pytest.mark.parametrize(
    "given",
    ["api.example", "ftp://a:1", "https://a:0", "https://a/path", "https://u@a", "a:b", "https://", "192.0.2:1"],
)
def test_where_no_api_can_be(given: str) -> None:
    with pytest.raises(ConfigError, match="TUNROUTER_APISERVER: expected HOST:PORT, or a URL"):
        configured(IN_KUBERNETES | {"TUNROUTER_APISERVER": given})


@pytest.mark.parametrize("metrics", ["127.0.0.1:6784", ":6784", "[::]:6784"])
def test_metrics_and_health_do_not_take_one_port(metrics: str) -> None:
    with pytest.raises(ConfigError, match=r"one port .*; change health_addr"):
        configured({"TUNROUTER_METRICS_ADDR": metrics, "TUNROUTER_HEALTH_ADDR": "127.0.0.1:6784"})
    both = {"TUNROUTER_METRICS_ADDR": "192.0.2.1:6784", "TUNROUTER_HEALTH_ADDR": "127.0.0.1:6784"}
    assert configured(both).config.health_addr == "127.0.0.1:6784"


def test_in_a_cluster_the_policy_process_has_a_port_of_its_own() -> None:
    taken = {"TUNROUTER_METRICS_ADDR": ":6781"}
    assert configured(taken).config.metrics_addr == ":6781", "elsewhere there is no such process"
    with pytest.raises(ConfigError, match=r"npc_addr .* one port .*; change metrics_addr"):
        configured(IN_KUBERNETES | taken)
    assert configured(IN_KUBERNETES | taken | {"TUNROUTER_NPC_ADDR": "off"}).config.npc_addr == ""


def test_a_reload_and_the_agent_hear_what_the_command_heard() -> None:
    environ = IN_KUBERNETES | EVERYTHING | {"TUNROUTER_NAME": "node-a"}
    given, found = Given.of({}, environ | {"HOME": "/root"}), configured(environ)
    assert given.resolve(Files()).config == found.config
    assert given.remarks(found.config) == found.remarks


@given(st.text())
def test_whatever_the_arguments_are_the_outcome_is_a_configuration_or_our_error(text: str) -> None:
    said = ""
    try:
        with_arguments(text)
    except ConfigError as error:
        said = str(error)
    assert said.isprintable()


def test_every_variable_is_documented() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    assert {*EVERYTHING} >= {*VARIABLES}
    assert all(f"`{variable}`" in text for variable in EVERYTHING)
