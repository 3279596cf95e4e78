"""The variables of Weave Net's pods: what they meant there they mean here, and what has no meaning any more is said.

    flags > TUNROUTER_* > the flags in EXTRA_ARGS > Weave's other variables > file

Law: names that begin with WEAVE_ or IPALLOC_ are read everywhere, the general ones of Weave's manifest (CONN_LIMIT,
EXTRA_ARGS, …) only in Kubernetes: elsewhere they are somebody else's. What changes nothing is one line for the user,
and none where it asks for what happens anyhow. A flag in EXTRA_ARGS that nobody knows is an error, as it was there.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from typing import Final, NamedTuple

from tunrouter.config.model import KEYS, SECRET_KEYS, Origin
from tunrouter.config.sources import SPELLINGS, Extra
from tunrouter.errors import ConfigError

EXTRA_ARGS: Final = "EXTRA_ARGS"
DEBUG: Final = "WEAVE_DEBUG"
EVERYWHERE: Final = ("WEAVE_", "IPALLOC_")


class Idle(NamedTuple):
    """What is taken and changes nothing."""

    why: str
    variable: str = ""
    happens: str = ""
    """The value that asks for what happens anyhow."""
    kubernetes: bool = False
    """Elsewhere it has a meaning."""
    flags: str = ""
    """Of weaver and weave-npc, with a value."""
    switches: str = ""
    """Without one."""


IDLE: Final = (
    Idle("there is one data path, in user space", "WEAVE_NO_FASTDP", flags="datapath bufsz",
         switches="no-fastdp no-bridged-fastdp"),
    Idle("a node keeps about eight neighbours, and sessions have their own bounds", "CONN_LIMIT", flags="conn-limit"),
    Idle("clients' addresses are always kept", "NO_MASQ_LOCAL", "1", switches="no-masq-local"),
    Idle("a pod always reaches itself through its own Service", "HAIRPIN_MODE", "true"),
    Idle("rules are nftables, and foreign iptables rules are met in the backend that they are in", "IPTABLES_BACKEND"),
    Idle("the gateway is the first address of the node's first block; `tunrouter expose ADDRESS` adds others",
         "WEAVE_EXPOSE_IP"),
    Idle("`tunrouter status` tells it, and health_addr the health", "WEAVE_STATUS_ADDR", "off", flags="status-addr"),
    Idle("nobody is ever called home", "CHECKPOINT_DISABLE", flags="token peer-discovery-url advertise-address"),
    Idle("state is kept in state_dir", "DB_PREFIX", flags="db-prefix"),
    Idle("the manifest mounts what is needed of the host", "HOST_ROOT", flags="host-root proc-path"),
    Idle("there is no init container", "INIT_CONTAINER"),
    Idle("the manifest mounts the host's directory; the overlay read-only-hosts chooses another",
         "WEAVE_CNI_PLUGIN_DIR", kubernetes=True),
    Idle("Leases decide whose a block is", "IPALLOC_INIT", kubernetes=True, flags="ipalloc-init"),
    Idle("targets are always kept over restarts", switches="resume"),
    Idle("there is one protocol", flags="min-protocol-version"),
    Idle("all pods have addresses of the one range", flags="ipalloc-default-subnet", switches="no-default-ipalloc"),
    Idle("everything is encrypted, in all subnets", flags="trusted-subnets"),
    Idle("packets go through the tunnel, never by a cloud's routes", switches="awsvpc"),
    Idle("names are the business of the cluster's DNS", switches="no-dns without-dns no-rewrite-hosts",
         flags="dns-domain dns-listen-address dns-ttl dns-fallback-timeout resolv-conf"),
    Idle("there is neither a plugin nor a proxy for Docker",
         flags="docker-api docker-bridge plugin-socket plugin-mesh-socket plugin-v2-socket H hostname-from-label "
               "hostname-match hostname-replacement tlscacert tlscert tlskey",
         switches="plugin plugin-v2 plugin-v2-multicast proxy rewrite-inspect tls tlsverify no-multicast-route"),
    Idle("the commands of `tunrouter` answer this", flags="profile", switches="pkt-debug print-peer-name version"),
    Idle("how NetworkPolicies are taken is no option; the log of weave-npc says what becomes of them",
         switches="allow-mcast use-legacy-netpol", flags="node-name"),
)  # fmt: skip
IDLE_FLAGS: Final = {flag: idle for idle in IDLE for flag in idle.flags.split()}
IDLE_SWITCHES: Final = {flag: idle for idle in IDLE for flag in idle.switches.split()}
ALIASES: Final = {"nickname": "name", "ipalloc-range": "range", "weave-bridge": "bridge", "http-addr": "health_addr"}
VALUES: Final = {name.replace("_", "-"): name for name in SECRET_KEYS} | ALIASES
VALUES_OF_KEYS: Final = {
    key.name.replace("_", "-"): key.name for key in KEYS if key.native is not bool and key.option.startswith("--")
}
SWITCHES: Final = {key.name.replace("_", "-"): key.name for key in KEYS if key.native is bool}
VARIABLES: Final = (EXTRA_ARGS, DEBUG, "KUBE_PEERS", "EXPECT_NPC", *(idle.variable for idle in IDLE if idle.variable))


class Heard(NamedTuple):
    environ: Mapping[str, str]
    """What there is to find values in."""
    extra: Extra
    remarks: tuple[str, ...]
    """What changes nothing, and why."""


def hear(environ: Mapping[str, str], *, kubernetes: bool) -> Heard:
    """Raises ConfigError for EXTRA_ARGS that cannot be read."""
    given = {name: environ[name] for name in VARIABLES if environ.get(name) and _applies(name, kubernetes=kubernetes)}
    idle = [one for one in IDLE if one.variable in given and (kubernetes or not one.kubernetes)]
    extra: Extra = {}
    if DEBUG in given:
        extra["log_level"] = "debug", Origin(DEBUG)
    remarks = [_remark(one.variable, one) for one in idle if not _happens(one, given[one.variable])]
    remarks += _read_arguments(given.get(EXTRA_ARGS, ""), extra)
    hidden = {one.variable for one in idle} | {name for name in VARIABLES if name not in given}
    return Heard({name: value for name, value in environ.items() if name not in hidden}, extra, tuple(remarks))


def _applies(variable: str, *, kubernetes: bool) -> bool:
    return kubernetes or variable.startswith(EVERYWHERE)


def _remark(what: str, idle: Idle) -> str:
    return f"{what} changes nothing: {idle.why}"


def _read_arguments(text: str, extra: Extra) -> list[str]:
    """Puts into `extra` what has a key; the remarks on what has none."""
    words = _split(text)
    remarks, peers = [], []
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            peers.append(word)
            continue
        flag, equals, value = word.lstrip("-").partition("=")
        where = f"{EXTRA_ARGS}: --{flag}"
        if (idle := IDLE_FLAGS.get(flag) or IDLE_SWITCHES.get(flag)) is not None:
            if flag in IDLE_FLAGS and not equals:
                _value(where, words)
            asks = value if equals else "1"
            if not _happens(idle, asks):
                remarks.append(_remark(where, idle))
        elif (name := _switch(flag)) is not None:
            extra[name] = _said(where, flag, value if equals else "true"), Origin(where)
        elif (name := VALUES.get(flag) or VALUES_OF_KEYS.get(flag)) is not None:
            extra[name] = value if equals else _value(where, words), Origin(where, f"--{flag}={{}}")
        else:
            raise _unknown(flag)
    if peers:
        extra["peers"] = " ".join(peers), Origin(EXTRA_ARGS)
    return remarks


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        fix = "close every quote, as in a shell"
        raise ConfigError(f"{EXTRA_ARGS}: {str(error).lower()}", fix) from None


def _value(where: str, words: list[str]) -> str:
    if not words:
        raise ConfigError(f"{where}: expected a value, got nothing", f"for example: {where.rpartition(' ')[2]}=VALUE")
    return words.pop(0)


def _switch(flag: str) -> str | None:
    return SWITCHES.get(flag) or SWITCHES.get(flag.removeprefix("no-"))


def _said(where: str, flag: str, value: str) -> str:
    """As its key says it: `--no-discovery` is `discovery`, turned round."""
    if value.lower() not in SPELLINGS:
        raise ConfigError(f"{where}: expected true or false, got {value[:80]!r}", f"give --{flag} alone")
    return str(SPELLINGS[value.lower()] != (flag not in SWITCHES)).lower()


def _happens(idle: Idle, value: str) -> bool:
    return bool(idle.happens) and _meaning(value) == _meaning(idle.happens)


def _meaning(value: str) -> str | bool:
    return SPELLINGS.get(value.lower(), value)


def _unknown(flag: str) -> ConfigError:
    known = [*VALUES, *VALUES_OF_KEYS, *SWITCHES, *(f"no-{name}" for name in SWITCHES), *IDLE_FLAGS, *IDLE_SWITCHES]
    close = difflib.get_close_matches(flag, known, n=1)
    fix = f"did you mean --{close[0]}?" if close else "take it out: neither Weave Net nor tunrouter has it"
    return ConfigError(f"{EXTRA_ARGS}: unknown flag {'--' + flag[:80]!r}", fix)
