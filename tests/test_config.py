"""Precedence, checks and error texts of the configuration, without a file system or an environment."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunrouter.config import (
    DEFAULT_FILE,
    Config,
    File,
    Given,
    Resolved,
    hand_over,
    listening,
    read_handed_over,
    resolve,
)
from tunrouter.config.founding import IPALLOC_INIT
from tunrouter.config.model import KEYS, SECRET_KEYS, Key
from tunrouter.config.resolve import UNDERLAY
from tunrouter.config.secrets import CREDENTIALS_VARIABLE
from tunrouter.config.sources import (
    CREDENTIAL_SOURCE_VARIABLE,
    FILE_VARIABLE,
    PASSWORD_FILE_VARIABLE,
    PASSWORD_VARIABLES,
)
from tunrouter.errors import ConfigError, TunrouterError

BLOCK = {"block": "10.32.1.0/24"}
ROOT = Path(__file__).parent.parent


class Files(dict[str, str | File]):
    """A file system of a few texts; 0600 unless a File says otherwise."""

    def __call__(self, path: Path) -> File:
        if str(path) not in self:
            raise FileNotFoundError(2, "No such file", str(path))
        content = self[str(path)]
        return content if isinstance(content, File) else File(content.encode(), 0o600)


def configured(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, files: Files | None = None
) -> Config:
    return resolve({**BLOCK, **(flags or {})}, environ or {}, files or Files(), hostname="here").config


def resolved(flags: Mapping[str, object], environ: Mapping[str, str], toml: str) -> Resolved:
    return resolve(flags, environ, Files({str(DEFAULT_FILE): toml}), hostname="here")


def refusal(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, files: Files | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(flags, environ, files)
    text = str(caught.value)
    assert text.isprintable(), "one line, harmless to a terminal"
    assert caught.value.fix, "every error says what to do next"
    assert caught.value.exit_code == 2
    return text


def test_defaults() -> None:
    assert configured() == Config(name="here", block="10.32.1.0/24")


def test_flag_beats_variable_beats_file_beats_default() -> None:
    toml = "port = 1\nmtu = 1300\nnetwork = 'file'"
    environ = {"TUNROUTER_PORT": "2", "TUNROUTER_MTU": "1301"}
    config = resolved({"port": "3"}, environ, toml).config
    assert (config.port, config.mtu, config.network, config.bridge) == (3, 1301, "file", "weave")


def test_origins_are_known() -> None:
    found = resolved({"port": "3"}, {"TUNROUTER_MTU": "1301"}, "network = 'file'")
    wheres = [found.origin(key).where for key in ("port", "mtu", "network", "bridge", "name")]
    assert wheres == ["--port", "TUNROUTER_MTU", f"{DEFAULT_FILE}: network", "the default", "the host's name"]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_key_comes_from_flag_variable_and_file(key: Key) -> None:
    toml = {int: key.example, bool: key.example, tuple: f'["{key.example}"]'}.get(key.native, f'"{key.example}"')
    found = [
        resolved({key.name: True if key.native is bool else key.example}, {}, ""),
        resolved({}, {key.variables[0]: key.example}, ""),
        resolved({}, {}, f"{key.name} = {toml}"),
    ]
    values = [getattr(each.config, key.name) for each in found]
    assert values[0] == values[1] == values[2]
    assert all(each.origin(key.name).where != "the default" for each in found)


def test_weave_names() -> None:
    config = configured({"block": "10.40.0.0/24"}, {"IPALLOC_RANGE": "10.40.0.0/16", "WEAVE_MTU": "1300"})
    assert (config.range, config.mtu) == ("10.40.0.0/16", 1300)
    both = configured({"block": "10.40.0.0/24"}, {"IPALLOC_RANGE": "10.50.0.0/16", "TUNROUTER_RANGE": "10.40.0.0/16"})
    assert both.range == "10.40.0.0/16"


def test_empty_variables_are_absent() -> None:
    assert configured(environ={"TUNROUTER_PORT": "", "TUNROUTER_CONFIG": "", "IPALLOC_RANGE": ""}) == configured()


def test_devices_are_given_several_times_or_with_commas() -> None:
    assert configured({"iface": ["eth1,192.0.2.7", "eth0", "eth1"]}).iface == ("eth1", "192.0.2.7", "eth0")
    assert configured(environ={"TUNROUTER_IFACE": "eth1, 2001:DB8::7"}).iface == ("eth1", "2001:db8::7")
    assert configured().iface == ()


def test_two_words_about_the_underlay_are_a_mistake_wherever_they_stand() -> None:
    with pytest.raises(ConfigError, match="TUNROUTER_IFACE and --iface-can-reach both say"):
        configured({"iface_can_reach": "192.0.2.1"}, {"TUNROUTER_IFACE": "eth0"})


def test_peers_are_split_and_doubles_dropped() -> None:
    config = configured(environ={"TUNROUTER_PEERS": "a.example, 192.0.2.7:1 a.example"})
    assert config.peers == ("a.example", "192.0.2.7:1")


@pytest.mark.parametrize(
    "peer", ["host-2", "a_b.example.", "192.0.2.7", "192.0.2.7:6783", "2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:1"]
)
def test_peers_that_are_taken(peer: str) -> None:
    assert configured({"peers": [peer]}).peers == (peer,)


@pytest.mark.parametrize(
    "peer",
    ["", " ", "a b", "host:0", "host:65536", "host:", "host:x", "1.2.3", "1.2.3.256", "[::1", "[host]:1", "-a", "a..b",
     "http://a", "a/b", "é.example", "x" * 254, "host:99999999999", "0.0.0.0", "224.0.0.1", "fe80::1%eth0",
     "fe80::1", "[fe80::1%eth0]:6783", "2001:db8::1%eth0", "a\x1b[31m"],
)  # fmt: skip
def test_peers_that_are_refused(peer: str) -> None:
    assert "peer" in refusal({"peers": [peer]})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": "abc"}, ["--port", "a number", "'abc'", "--port 6783"]),
        ({"port": "0"}, ["--port", "1 to 65535"]),
        ({"port": ""}, ["--port", "nothing"]),
        ({"mtu": "100"}, ["--mtu", "576"]),
        ({"mtu": "65536"}, ["--mtu"]),
        ({"block": "10.99.0.0/24"}, ["--block", "outside the range 10.32.0.0/12", "--block 10.32.0.0/24"]),
        ({"block": "10.0.0.0/8"}, ["--block", "outside the range"]),
        ({"block": "10.32.1.7/24"}, ["host bits", "--block 10.32.1.0/24"]),
        ({"block": "10.32.1.0"}, ["--block", "with its length"]),
        ({"block": "10.32.1.0/31"}, ["--block", "at most /30"]),
        ({"range": "fd00::/64"}, ["--range", "IPv6 is not supported yet"]),
        ({"range": "10.0.0.0/4"}, ["--range"]),
        ({"range": "127.0.0.0/12"}, ["--range", "loopback"]),
        ({"range": "banana"}, ["--range", "banana"]),
        ({"name": "a\nb"}, ["--name", r"'a\nb'"]),
        ({"name": "\x1b[31mred"}, ["--name", "printable"]),
        ({"name": "x" * 65}, ["--name", "64 bytes"]),
        ({"name": "ä" * 33}, ["--name", "64 bytes"]),
        ({"name": "\udc80"}, ["--name"]),
        ({"bridge": "a/b"}, ["--bridge", "device name"]),
        ({"bridge": "x" * 16}, ["--bridge"]),
        ({"bridge": "tunrouter0"}, ["'tunrouter0'", "bridge from --bridge", "change bridge"]),
        ({"state_dir": "/run/tunrouter"}, ["state", "/run/tunrouter", "change state_dir"]),
        ({"run_dir": "run"}, ["--run-dir", "absolute path"]),
        ({"run_dir": "/" + "x" * 100}, ["--run-dir", "at most"]),
        ({"host": "10.32.0.9"}, ["10.32.0.9", "inside the pods' range"]),
        ({"host": "nowhere"}, ["--host", "an address of this host"]),
        ({"iface": ["eth0", "a/b"]}, ["--iface", "devices, as `ip link` shows them", "--iface eth1"]),
        ({"iface": ","}, ["--iface", "1 to 16 devices"]),
        ({"iface": ["127.0.0.1"]}, ["--iface", "neither loopback"]),
        ({"iface": ["fe80::1"]}, ["--iface", "IPv6 link-local"]),
        ({"iface": ["eth0", "weave"]}, ["weave is our own device", "iface from --iface", "change iface"]),
        ({"iface": ["10.32.0.9"]}, ["10.32.0.9", "inside the pods' range"]),
        ({"iface_can_reach": "peer.example"}, ["--iface-can-reach", "a unicast address"]),
        ({"iface_can_reach": "10.32.0.9"}, ["10.32.0.9", "inside the pods' range", "change iface_can_reach"]),
        ({"host": "192.0.2.7", "iface": ["eth0"]}, ["--host and --iface both say", "keep one"]),
        ({"metrics_addr": "6782"}, ["--metrics-addr", ":PORT for all addresses", "--metrics-addr 127.0.0.1:6782"]),
        ({"metrics_addr": "127.0.0.1"}, ["--metrics-addr", "ADDRESS:PORT"]),
        ({"metrics_addr": "localhost:6782"}, ["--metrics-addr", "ADDRESS:PORT"]),
        ({"metrics_addr": "127.0.0.1:0"}, ["--metrics-addr"]),
        ({"metrics_addr": "127.0.0.1:65536"}, ["--metrics-addr"]),
        ({"metrics_addr": "::1:6782"}, ["--metrics-addr", "[IPV6]:PORT"]),
        ({"metrics_addr": ""}, ["--metrics-addr", "nothing"]),
        ({"peers": ["10.32.5.5:6783"]}, ["10.32.5.5:6783", "inside the pods' range"]),
        ({"peers": [f"h{n}" for n in range(1025)]}, ["at most 1024 peers"]),
        ({"log_level": "loud"}, ["--log-level", "one of debug, info"]),
        ({"config": "/absent.toml"}, ["--config", "/absent.toml", "does not exist"]),
    ],
)
def test_flags_that_are_refused(flags: Mapping[str, object], words: list[str]) -> None:
    text = refusal(flags)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("given", "canonical", "where"),
    [
        ("127.0.0.1:6782", "127.0.0.1:6782", ("127.0.0.1", 6782)),
        ("0.0.0.0:06782", "0.0.0.0:6782", ("0.0.0.0", 6782)),
        (":6782", ":6782", ("", 6782)),
        ("[::1]:6782", "[::1]:6782", ("::1", 6782)),
        ("[2001:db8:0::1]:1", "[2001:db8::1]:1", ("2001:db8::1", 1)),
    ],
)
def test_addresses_to_listen_at(given: str, canonical: str, where: tuple[str, int]) -> None:
    assert configured({"metrics_addr": given}).metrics_addr == canonical
    assert listening(canonical) == where


def test_metrics_may_be_off() -> None:
    assert configured({"metrics_addr": "off"}).metrics_addr == ""
    assert configured(environ={"WEAVE_METRICS_ADDR": "off"}).metrics_addr == ""
    assert resolved({}, {}, 'metrics_addr = ""').config.metrics_addr == ""


def automatic(flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Of a node whose block is not given by hand."""
    return resolve(flags or {}, environ or {}, Files(), hostname="here").config


def automatic_refusal(flags: Mapping[str, object], environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        automatic(flags, environ)
    assert caught.value.fix
    return str(caught.value)


def test_without_a_block_the_range_is_cut() -> None:
    assert (automatic().block, automatic().block_size) == ("", 24)
    assert automatic({"block_size": "26"}).block_size == 26
    assert automatic({"range": "10.40.0.0/26"}).block_size == 26, "the range itself is smaller than a block"
    assert automatic({"range": "10.40.0.0/26", "block_size": "29"}).block_size == 29


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"block_size": "15"}, ["--block-size", "from 16 to 29", "'15'", "--block-size 24"]),
        ({"block_size": "30"}, ["--block-size", "from 16 to 29"]),
        (
            {"block_size": "20", "range": "10.40.0.0/22"},
            ["/20 is larger than the range", "--block-size 24"],
        ),
        ({"block_size": "24", "range": "10.40.0.0/26"}, ["/24 is larger", "--block-size 26"]),
        ({"range": "10.40.0.0/30"}, ["10.40.0.0/30 (--range) has no room for a block of /29", "a larger one"]),
        ({"init_peers": "0"}, ["--init-peers", "from 1 to 1000", "--init-peers 3"]),
        ({"init_peers": "1001"}, ["--init-peers", "from 1 to 1000"]),
        ({"seed": "a,b"}, ["--seed", "1, 3 or 5 different nodes", "'a,b'", "--seed node-a"]),
        ({"seed": "a,b,c,d,e,f,g"}, ["1, 3 or 5"]),
        ({"seed": "a,b,a"}, ["1, 3 or 5 different"]),
        ({"seed": "a,b\x1b,c"}, ["--seed", "printable"]),
        ({"init_peers": "3", "seed": "a"}, ["--init-peers and --seed both say how", "keep one"]),
        ({"observer": True, "seed": "a"}, ["--seed and --observer both say how"]),
    ],
)
def test_foundings_that_are_refused(flags: Mapping[str, object], words: list[str]) -> None:
    text = automatic_refusal(flags)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("mode", "peers", "meant"),
    [
        ("consensus=3", [], (3, (), False)),
        ("consensus", ["b", "c"], (3, (), False)),
        ("consensus", [], (1, (), False)),
        ("seed=a", [], (0, ("a",), False)),
        ("seed=7a:16:dd:5b:83:de,b,c", [], (0, ("7a:16:dd:5b:83:de", "b", "c"), False)),
        ("observer", ["b"], (0, (), True)),
    ],
)
def test_weaves_words_for_a_founding(mode: str, peers: list[str], meant: tuple[int, tuple[str, ...], bool]) -> None:
    by_flag = automatic({"ipalloc_init": mode, "peers": peers})
    assert (by_flag.init_peers, by_flag.seed, by_flag.observer) == meant
    assert automatic({"peers": peers}, {"IPALLOC_INIT": mode}) == by_flag
    assert automatic({"ipalloc_init": mode, "peers": peers}, {"IPALLOC_INIT": "observer"}) == by_flag, "a flag wins"


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        ({"ipalloc_init": "frob"}, {}, ["--ipalloc-init", "consensus=N", "'frob'", "--ipalloc-init consensus=3"]),
        ({"ipalloc_init": ""}, {}, ["--ipalloc-init", "nothing"]),
        ({"ipalloc_init": "consensus=0"}, {}, ["from 1 to 1000"]),
        ({"ipalloc_init": "consensus="}, {}, ["consensus=N"]),
        ({"ipalloc_init": "seed="}, {}, ["--ipalloc-init"]),
        ({}, {"IPALLOC_INIT": "seed=a,b"}, ["IPALLOC_INIT", "1, 3 or 5", "'seed=a,b'"]),
        ({"ipalloc_init": "observer", "seed": "a"}, {}, ["--seed and --ipalloc-init both say how"]),
        ({"init_peers": "3"}, {"IPALLOC_INIT": "consensus=3"}, ["--init-peers and IPALLOC_INIT both say how"]),
        (
            {"peers": [f"h{n}" for n in range(1000)]},
            {"IPALLOC_INIT": "consensus"},
            ["1001 nodes are more than the 1000", "IPALLOC_INIT=consensus=3"],
        ),
    ],
)
def test_weaves_words_that_are_refused(
    flags: Mapping[str, object], environ: Mapping[str, str], words: list[str]
) -> None:
    text = automatic_refusal(flags, environ)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("flags", "environ", "other"),
    [
        ({"block_size": "24"}, {}, "--block-size"),
        ({"init_peers": "3"}, {}, "--init-peers"),
        ({}, {"TUNROUTER_SEED": "a b c"}, "TUNROUTER_SEED"),
        ({"observer": True}, {}, "--observer"),
        ({}, {"IPALLOC_INIT": "consensus"}, "IPALLOC_INIT"),
    ],
)
def test_a_block_by_hand_leaves_nothing_to_decide(
    flags: Mapping[str, object], environ: Mapping[str, str], other: str
) -> None:
    text = refusal(flags, environ)
    assert text == (
        f"--block gives this node its block by hand, so {other} has nothing to decide; leave out --block, or {other}"
    )


def test_what_says_no_beside_a_block_is_no_conflict() -> None:
    assert configured(environ={"TUNROUTER_OBSERVER": "no"}).block == "10.32.1.0/24"


def test_where_a_founding_came_from_is_known() -> None:
    found = resolve({}, {"IPALLOC_INIT": "seed=a,b,c"}, Files(), hostname="here")
    assert found.origin("seed").where == "IPALLOC_INIT"


def test_the_hosts_name_is_checked_only_if_used() -> None:
    with pytest.raises(ConfigError, match="--name"):
        resolve({}, {}, Files(), hostname="bad\nname")
    assert resolve({"name": "good"}, {}, Files(), hostname="bad\nname").config.name == "good"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("prot = 1", ["config.toml", "unknown key 'prot'", "'port'"]),
        ("zzz = 1", ["unknown key 'zzz'", "known keys are"]),
        ("host-firewall = true", ["'host_firewall'"]),
        ("port = '6783'", ["config.toml: port", "expected a number", "port = 6783"]),
        ("port = true", ["expected a number"]),
        ("port = 1.5", ["expected a number"]),
        ("peers = 'a'", ["expected a list of texts", 'peers = ["192.0.2.7"]']),
        ("peers = [1]", ["expected a list of texts"]),
        ("silent = 1", ["expected true or false"]),
        ("name = 3", ["expected text in quotes", 'name = "node-a"']),
        ("port = x", ["not valid TOML", "line 1", "config check"]),
        ("password = 3", ["config.toml: password", "text"]),
        ("password = []", ["empty"]),
        ("password_file = 3", ["password_file", "path"]),
        ("password = 'a'\npassword_file = '/p'", ["both", "keep one"]),
    ],
)
def test_files_that_are_refused(toml: str, words: list[str]) -> None:
    text = refusal(files=Files({str(DEFAULT_FILE): toml}))
    assert all(word in text for word in words), text


def test_files_that_are_not_text_or_too_large() -> None:
    assert "not UTF-8" in refusal(files=Files({str(DEFAULT_FILE): File(b"\xff", 0o600)}))
    assert "larger than" in refusal(files=Files({str(DEFAULT_FILE): File(b"#" * (1 << 19), 0o600)}))
    assert "not valid TOML" in refusal(files=Files({str(DEFAULT_FILE): "a = " + "[" * 50_000}))


def test_variables_that_are_refused() -> None:
    assert "did you mean TUNROUTER_PASSWORD?" in refusal(environ={"TUNROUTER_PASSWROD": "x"})
    assert "TUNROUTER_SILENT" in refusal(environ={"TUNROUTER_SILENT": "perhaps"})
    assert "WEAVE_MTU" in refusal(environ={"WEAVE_MTU": "big"})
    foreign = {"TUNROUTER_SERVICE_HOST": "10.0.0.1", "TUNROUTER_PORT_80_TCP": "tcp://10.0.0.1:80"}
    assert configured(environ=foreign) == configured()


SECRET = "correct horse battery staple"


def with_secret(source: str) -> Config:
    """A configuration whose password came by `source`."""
    private = Files({"/p": f"{SECRET}\n", "/cred/password": SECRET})
    toml = {"toml": f"password = '{SECRET}'", "toml_file": "password_file = '/p'"}.get(source)
    if toml:
        private[str(DEFAULT_FILE)] = toml
    flags = {"flag": {"password": SECRET}, "flag_file": {"password_file": "/p"}}.get(source, {})
    environ = {
        "variable": {"TUNROUTER_PASSWORD": SECRET},
        "variable_file": {"TUNROUTER_PASSWORD_FILE": "/p"},
        "weave": {"WEAVE_PASSWORD": SECRET},
        "credential": {"CREDENTIALS_DIRECTORY": "/cred"},
    }.get(source, {})
    return configured(flags, environ, private)


SOURCES = ["flag", "flag_file", "variable", "variable_file", "weave", "credential", "toml", "toml_file"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_password_comes_by_every_source(source: str) -> None:
    config = with_secret(source)
    assert config.secrets == (SECRET,)
    assert SECRET not in repr(config)
    assert SECRET not in str(config.masked())


def test_the_strongest_source_gives_all_secrets() -> None:
    files = Files({str(DEFAULT_FILE): "password = 'file'", "/cred/password": "credential"})
    environ = {"CREDENTIALS_DIRECTORY": "/cred"}
    found = []
    for stronger in ({}, {"WEAVE_PASSWORD": "weave"}, {"TUNROUTER_PASSWORD": "ours"}):
        environ |= stronger
        found.append(configured(environ=environ, files=files).secrets)
    found.append(configured({"password": "flag"}, environ, files).secrets)
    assert found == [("credential",), ("weave",), ("ours",), ("flag",)]


def test_a_credentials_directory_without_a_password_is_passed_by() -> None:
    files = Files({str(DEFAULT_FILE): "password = 'file'"})
    assert configured(environ={"CREDENTIALS_DIRECTORY": "/cred"}, files=files).secrets == ("file",)


def test_several_secrets_keep_their_order() -> None:
    assert configured({"password_file": "/p"}, files=Files({"/p": "new\n\nold\r\nnew\n"})).secrets == ("new", "old")
    toml = Files({str(DEFAULT_FILE): "password = ['new', 'old']"})
    assert configured(files=toml).secrets == ("new", "old")


@pytest.mark.parametrize(
    "secret", ["", "\n", " x", "x ", "a\tb", "a\x1b[0m", "x" * 1025, "a\nb\nc\nd\ne"], ids=lambda text: repr(text[:9])
)
@pytest.mark.parametrize("source", ["flag", "file", "variable"])
def test_secrets_that_are_refused_are_not_shown(secret: str, source: str) -> None:
    files = Files({"/p": secret})
    if source == "variable":
        text = refusal(environ={"TUNROUTER_PASSWORD": secret})
        assert "TUNROUTER_PASSWORD" in text
    else:
        text = refusal({"password": secret} if source == "flag" else {"password_file": "/p"}, files=files)
        assert "--password" in text
    assert not secret.strip() or secret.strip() not in text or len(secret.strip()) == 1


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
def test_an_exposed_password_file_is_refused(mode: int) -> None:
    text = refusal({"password_file": "/p"}, files=Files({"/p": File(b"secret", mode)}))
    assert "by everybody" in text
    assert "chmod 600 /p" in text


def test_an_exposed_configuration_may_hold_anything_but_a_password() -> None:
    assert configured(files=Files({str(DEFAULT_FILE): File(b"port = 1", 0o644)})).port == 1
    text = refusal(files=Files({str(DEFAULT_FILE): File(b"password = 'x'", 0o644)}))
    assert f"chmod 600 {DEFAULT_FILE}" in text


def test_a_group_may_read_a_password_file() -> None:
    assert configured({"password_file": "/p"}, files=Files({"/p": File(b"secret", 0o640)})).secrets == ("secret",)


def test_a_configuration_is_handed_over_once_and_sealed() -> None:
    flags = {"password": SECRET, "peers": ["a", "b"], "port": None, "silent": True}
    config, given = configured(flags), Given.of(flags, {"TUNROUTER_MTU": "1300", "HOME": "/root"})
    fd = hand_over(config, given)
    assert os.get_inheritable(fd)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    assert read_handed_over(fd) == (config, given)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_what_was_given_is_resolved_again_with_the_files_of_then() -> None:
    flags = {"password": None, "port": "7000", "peers": ["a"]}
    environ = {"TUNROUTER_MTU": "1300", "WEAVE_PASSWORD": "of the variable", "HOME": "/root", "IPALLOC_RANGE": ""}
    given = Given.of(flags, environ)
    assert given.environ.keys() == environ.keys() - {"HOME"}
    config = given.resolve(Files({str(DEFAULT_FILE): "log_level = 'debug'\nport = 1"})).config
    assert (config.port, config.mtu, config.log_level, config.peers) == (7000, 1300, "debug", ("a",))
    assert config.secrets == ("of the variable",)
    assert "of the variable" not in repr(given)


def test_no_variable_of_ours_is_lost_on_the_way_to_a_reload() -> None:
    names = [name for key in (*KEYS, IPALLOC_INIT) for name in key.variables]
    names += [*PASSWORD_VARIABLES, PASSWORD_FILE_VARIABLE, CREDENTIAL_SOURCE_VARIABLE, FILE_VARIABLE]
    names.append(CREDENTIALS_VARIABLE)
    assert Given.of({}, dict.fromkeys(names, "x")).environ.keys() == set(names)


def test_a_credential_is_read_again_where_systemd_took_it_from() -> None:
    environ = {"CREDENTIALS_DIRECTORY": "/c", "TUNROUTER_CREDENTIAL_SOURCE": "/etc/p"}
    files = Files({"/c/password": "old", "/etc/p": File(b"new\nold\n", 0o640)})
    assert resolve({}, environ, files, hostname="here").config.secrets == ("old",)
    assert Given({}, environ).resolve(files).config.secrets == ("new", "old")
    assert Given({}, {"CREDENTIALS_DIRECTORY": "/c"}).resolve(files).config.secrets == ("old",)
    assert Given({}, {"TUNROUTER_CREDENTIAL_SOURCE": "/etc/p"}).resolve(files).config.secrets == ()
    with pytest.raises(ConfigError, match=r"credential's source /etc/p: '/etc/p' does not exist"):
        Given({}, environ).resolve(Files({"/c/password": "old"}))
    with pytest.raises(ConfigError, match="password is empty"):
        Given({}, environ).resolve(Files({"/c/password": "old", "/etc/p": ""}))


def test_other_descriptors_hold_no_configuration(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        for fd in (file.fileno(), 9999, -1, 1 << 40):
            with pytest.raises(ConfigError, match="tunrouter up"):
                read_handed_over(fd)


def outcome(flags: Mapping[str, object], files: Files) -> Config | str:
    """The configuration or our error's text; any other exception fails the test."""
    try:
        return resolve(flags, {}, files, hostname="here").config
    except TunrouterError as error:
        text = str(error)
    assert text.isprintable()
    return text


_FLAGS = [*(key.name for key in KEYS), *SECRET_KEYS, IPALLOC_INIT.name]
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(_FLAGS), _scalars | st.lists(_scalars)))
def test_whatever_flags_hold_the_outcome_is_a_configuration_or_our_error(flags: dict[str, object]) -> None:
    config = outcome(flags, Files())
    if isinstance(config, Config):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_the_file_holds_the_outcome_is_a_configuration_or_our_error(data: bytes) -> None:
    outcome(BLOCK, Files({str(DEFAULT_FILE): File(data, 0o600)}))


def test_the_example_file_names_every_key_with_its_default() -> None:
    text = (ROOT / "config.toml.example").read_text()
    table = tomllib.loads(re.sub(r"^# ?(?=\w+ = )", "", text, flags=re.MULTILINE))
    assert set(table) == {key.name for key in KEYS} | set(SECRET_KEYS)
    defaults = msgspec.structs.asdict(Config(name=table["name"]))
    for name in table.keys() - {"name", "peers", "block", "init_peers", "seed", *UNDERLAY, *SECRET_KEYS}:
        assert table[name] == defaults[name], name


def test_every_key_and_variable_is_documented() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    for key in (*KEYS, IPALLOC_INIT):
        assert f"`{key.name}`" in text or key is IPALLOC_INIT
        assert all(f"`{variable}`" in text for variable in key.variables)
        assert key.option in text
    assert all(
        f"`{name}`" in text for name in (*PASSWORD_VARIABLES, PASSWORD_FILE_VARIABLE, CREDENTIAL_SOURCE_VARIABLE)
    )


def test_a_node_of_kubernetes_may_have_a_longer_name() -> None:
    """Its object is known by all of it, its record tells the beginning."""
    config = resolve({"name": "ä" * 100, "kubernetes": True}, {}, Files(), hostname="here").config
    assert config.name == "ä" * 100
    assert config.nickname == "ä" * 32
