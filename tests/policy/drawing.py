"""Drawn clusters: nine pods in three namespaces, what has ended or comes anew beside them, and policies of every form.

Law: drawn are objects as the server sends them. What is easily got wrong is drawn often: fields that are absent, null
or empty, ranges and blocks whose ends meet, names of ports that differ from pod to pod, and now and then what is not
understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

from hypothesis import strategies as st

from tests.policy.objects import (
    ABSENT,
    NAMES,
    NAMESPACES,
    NODES,
    PROTOCOLS,
    fields,
    home,
    namespace,
    pod,
    port,
    serving,
)
from tests.policy.spec.cluster import Cluster, Json
from tests.policy.stated_ends import BAD_PEERS, BAD_PORTS, BAD_SELECTORS

KEYS: Final = ("pod", "app")
VALUES: Final = ("a", "b", "")
PORT_NAMES: Final = ("web", "serve-80-tcp", "serve-81-udp", "nowhere")
MOST_POLICIES: Final = 6
BLOCKS: Final[Mapping[str, tuple[str, ...]]] = {
    "0.0.0.0/0": ("0.0.0.0/1", "10.0.0.0/8", "10.32.1.0/24", "10.32.2.21/32", "198.51.100.0/24", "192.0.2.0/30"),
    "10.32.0.0/16": ("10.32.1.0/24", "10.32.1.0/28", "10.32.0.0/17", "10.32.2.12/32", "10.32.3.13/32", "10.32.2.0/31"),
    "10.32.1.0/24": ("10.32.1.0/28", "10.32.1.8/29", "10.32.1.11/32", "10.32.1.16/28", "10.32.1.23/32"),
    "10.32.2.77/24": ("10.32.2.21/31", "10.32.2.12/32", "10.32.2.16/28", "10.32.2.0/25"),
    "10.32.3.0/27": ("10.32.3.1/32", "10.32.3.16/28", "10.32.3.22/32"),
    "192.0.2.0/24": ("192.0.2.1/32", "192.0.2.2/31"),
    "198.51.100.7/32": (),
    "203.0.113.0/28": ("203.0.113.8/30", "203.0.113.9/32"),
    "::/0": ("fd32::/16", "fd32::1:0/112", "2001:db8::/32", "fd02::1/128"),
    "fd32::/64": ("fd32::1:0/112", "fd32::1:11/128", "fd32::2:0/113", "fd32:0:0:0::2:21/128"),
    "fd32::2:0/112": ("fd32::2:12/128", "fd32::2:20/124"),
    "2001:DB8:51::/48": ("2001:db8:51::7/128",),
    "fd02::/126": ("fd02::2/127",),
}
"""And what may be excepted of each: parts that overlap, that hold one pod, or most of it."""


def often(usual: Any, *rare: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 2 * len(rare) + list(rare))


choice = st.builds(
    lambda key, operator, values: {"key": key, "operator": operator, "values": values},
    st.sampled_from(("app", "app", "pod")),
    st.sampled_from(("In", "NotIn")),
    st.lists(st.sampled_from(VALUES), min_size=1, max_size=2),
)
existence = st.builds(
    lambda key, operator, values: fields(key=key, operator=operator, values=values),
    st.sampled_from(("app", "app", "pod")),
    st.sampled_from(("Exists", "DoesNotExist")),
    st.sampled_from((ABSENT, None, [])),
)
expression = choice | existence
named = st.builds(lambda value: {"matchLabels": {"pod": value}}, st.sampled_from(NAMES))
selector = st.one_of(
    st.just({}),
    st.builds(
        fields,
        matchLabels=st.one_of(
            st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), min_size=1, max_size=2),
            st.sampled_from((ABSENT, None, {})),
        ),
        matchExpressions=st.one_of(st.lists(expression, max_size=2), st.sampled_from((ABSENT, None))),
    ),
    named,
    st.builds(lambda one: {"matchExpressions": [one]}, expression),
)
namespaces_selector = st.one_of(
    st.just({}),
    named,
    st.builds(lambda value: {"matchLabels": {"kubernetes.io/metadata.name": value}}, st.sampled_from(NAMESPACES)),
    st.builds(lambda one: {"matchExpressions": [one]}, expression),
)


def block(cidr: str) -> st.SearchStrategy[Json]:
    parts, nothing = BLOCKS[cidr], st.sampled_from((ABSENT, None, []))
    some = st.lists(st.sampled_from(parts), min_size=1, max_size=min(3, len(parts)), unique=True) if parts else nothing
    return st.builds(lambda excepted: {"ipBlock": fields(cidr=cidr, except_=excepted)}, some | some | nothing)


blank = often(ABSENT, None)
blocks = st.one_of([block(cidr) for cidr in (*BLOCKS, *list(BLOCKS)[:5])])
peer = st.one_of(
    blocks,
    st.builds(fields, podSelector=selector, namespaceSelector=blank, ipBlock=blank),
    st.builds(fields, namespaceSelector=namespaces_selector, podSelector=blank),
    st.builds(fields, namespaceSelector=namespaces_selector, podSelector=selector),
    st.builds(fields, namespaceSelector=namespaces_selector, podSelector=named),
)
protocol = st.sampled_from((*PROTOCOLS, ABSENT, None))
by_name = st.sampled_from(({"port": "web"}, {"port": "web", "protocol": "UDP"}, {"port": "web", "endPort": None}))
wanted = st.one_of(
    by_name,
    by_name,
    st.builds(fields, protocol=protocol, port=st.sampled_from((80, 81, *PORT_NAMES)), endPort=blank),
    st.builds(
        lambda protocol, ends: fields(protocol=protocol, port=ends[0], endPort=ends[1]),
        protocol,
        st.sampled_from(((80, 80), (79, 80), (80, 81), (81, 82), (1, 79), (82, 65535), (1, 65535), (1, 1))),
    ),
    st.builds(fields, protocol=protocol, port=blank),
)


def few(of: st.SearchStrategy[Any], bad: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """A list, or one of the ways to have none; in one of about twenty something is not understood."""
    usual = st.lists(of, min_size=1, max_size=2)
    spoiled = st.builds(lambda good, worse: [*good, worse], st.lists(of, max_size=1), st.sampled_from(bad))
    nothing = st.sampled_from((ABSENT, None, []))
    return st.integers(0, 19).flatmap(lambda n: spoiled if n == 19 else nothing if n < 7 else usual)


def rules(field: str) -> st.SearchStrategy[Any]:
    one = st.builds(
        lambda peers, ports: fields(**{field: peers, "ports": ports}), few(peer, BAD_PEERS), few(wanted, BAD_PORTS)
    )
    usual = st.lists(one, min_size=1, max_size=2)
    return st.one_of(usual, usual, usual, st.sampled_from((ABSENT, None, [])))


types = st.sampled_from(
    (ABSENT, ABSENT, None, [], ["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Egress", "Ingress"])
)
subject = st.integers(0, 11).flatmap(
    lambda n: st.sampled_from(BAD_SELECTORS) if n == 11 else st.sampled_from((ABSENT, None, {})) if n < 4 else selector
)
one_policy = st.tuples(
    st.sampled_from(NAMESPACES),
    st.builds(fields, podSelector=subject, policyTypes=types, ingress=rules("from"), egress=rules("to")),
)
policies = st.integers(1, MOST_POLICIES).flatmap(lambda count: st.lists(one_policy, min_size=count, max_size=count))


def container(*ports: Json, **more: Any) -> Json:
    return {"name": "c", "ports": list(ports), **more}


SIDECAR: Final[Json] = {"restartPolicy": "Always"}
LAYOUTS: Final[tuple[tuple[list[Json], Any], ...]] = (
    ([container(*serving())], ABSENT),
    ([container(port("web", 80))], []),
    ([container(port("web", 81, "TCP"))], None),
    ([container(port("web", 80, "UDP")), container(port("serve-80-tcp", 81, None))], ABSENT),
    ([container(port("web", 80)), container(port("web", 81))], ABSENT),
    ([container(port("web", 80)), container(port("web", 81, "UDP"))], ABSENT),
    ([container(port("web", 81))], [container(port("web", 80), restartPolicy=None)]),
    ([container(port("serve-81-udp", 80, "UDP"))], [container(port("web", 80)), container(port("web", 81), **SIDECAR)]),
    ([{"name": "c", "ports": None}], [container(port("web", 80), **SIDECAR)]),
    ([{"name": "c"}], [container(port("web", 80)), container(port("web", 81), restartPolicy="Never")]),
    ([container(port("web", 81))], [container(port("web", 80), **SIDECAR)]),
    ([container()], [container(port("web", 81), **SIDECAR)]),
)
"""Containers and initContainers: who has a port of a name, and which, and who only had it."""


def labelled(name: str) -> st.SearchStrategy[Any]:
    usual = {"pod": name}
    return st.sampled_from(
        (
            usual, usual, {**usual, "app": "a"}, {**usual, "app": "b"}, {**usual, "app": ""}, {"pod": "b"},
            {"app": "a"}, {"app": ""}, {"pod": "", "app": "b"}, {}, None, ABSENT,
        )
    )  # fmt: skip


STATES: Final[tuple[Json, ...]] = (
    *[{}] * 12,
    {"phase": "Pending"},
    {"deleted": "2024-05-01T12:00:00Z"},
    {"phase": "Succeeded"},
    {"phase": "Failed"},
    {"phase": "Failed", "deleted": "2024-05-01T12:00:00Z"},
    {"host_network": True},
    {"host_network": False},
    {"host_network": None, "at": ()},
)


@st.composite
def drawn_pod(draw: st.DrawFn, key: str, created: int, node: str, at: Sequence[str]) -> Json:
    state, layout = draw(st.sampled_from(STATES)), draw(st.sampled_from(LAYOUTS))
    how = {"at": NODES[node][:2] if state.get("host_network") else at, **state}
    return pod(key, node, labels=draw(labelled(key[2])), created=created, containers=layout[0], init=layout[1], **how)


FAMILIES: Final = (slice(0, 2), slice(0, 2), slice(0, 1), slice(1, 2), slice(None, None, -1))
SPACES: Final[tuple[Json, ...]] = ({}, {"pod": "a"}, {"pod": "b"}, {"pod": "c", "app": ""}, {"app": "a"}, {"app": ""})


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    pods: list[Json] = []
    ages = draw(st.permutations(range(12)))
    for where, name in product(NAMESPACES, NAMES):
        node, at = home(f"{where}/{name}")
        pods.append(draw(drawn_pod(f"{where}/{name}", ages[len(pods)], node, at[draw(st.sampled_from(FAMILIES))])))
    for name in draw(st.sampled_from(("", "", "d", "de", "def"))):  # which want another's addresses
        node, at = home(f"{draw(st.sampled_from(NAMESPACES))}/{draw(st.sampled_from(NAMES))}")
        node = draw(st.sampled_from((node, *NODES)))
        pods.append(draw(drawn_pod(f"{draw(st.sampled_from(NAMESPACES))}/{name}", ages[len(pods)], node, at)))
    spaces = [namespace(where, draw(st.sampled_from(SPACES))) for where in NAMESPACES]
    drawn = enumerate(draw(policies))
    listed = [{"metadata": {"namespace": where, "name": f"p{n}"}, "spec": spec} for n, (where, spec) in drawn]
    return Cluster(pods, spaces, listed, NODES)
