"""Drawn clusters: nine pods in three namespaces, what has ended or comes anew beside them, and policies of every form.

Law: drawn are objects as the server sends them. What is easily got wrong is drawn often: fields that are absent, null
or empty, ranges and blocks whose ends meet, names of ports that differ from pod to pod, and now and then what is not
understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

KEYS: Final = ("pod", "app", "tier")
VALUES: Final = ("a", "b", "c", "")
PORT_NAMES: Final = ("web", "serve-80-tcp", "serve-81-udp", "serve-80-sctp", "nowhere")
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


labels = st.dictionaries(st.sampled_from(KEYS[1:]), st.sampled_from(VALUES), max_size=2)
any_labels = st.one_of(labels, labels, labels, st.sampled_from((ABSENT, None)))
expression = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": values},
        st.sampled_from(KEYS),
        st.sampled_from(("In", "NotIn")),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=3),
    ),
    st.builds(
        lambda key, operator, values: fields(key=key, operator=operator, values=values),
        st.sampled_from(KEYS),
        st.sampled_from(("Exists", "DoesNotExist")),
        st.sampled_from((ABSENT, None, [])),
    ),
)
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
    st.builds(lambda value: {"matchLabels": {"pod": value}}, st.sampled_from(NAMES)),
)
namespaces_selector = st.one_of(
    st.just({}),
    st.builds(lambda value: {"matchLabels": {"pod": value}}, st.sampled_from(NAMES)),
    st.builds(lambda value: {"matchLabels": {"kubernetes.io/metadata.name": value}}, st.sampled_from(NAMESPACES)),
    st.builds(lambda one: {"matchExpressions": [one]}, expression),
)


@st.composite
def block(draw: st.DrawFn) -> Json:
    cidr = draw(st.sampled_from(list(BLOCKS)))
    parts = BLOCKS[cidr]
    excepted = st.lists(st.sampled_from(parts), max_size=3, unique=True) if parts else st.just([])
    return {"ipBlock": fields(cidr=cidr, except_=draw(st.one_of(excepted, st.sampled_from((ABSENT, None)))))}


blank = often(ABSENT, None)
peer = st.one_of(
    block(),
    st.builds(fields, podSelector=selector, namespaceSelector=blank, ipBlock=blank),
    st.builds(fields, namespaceSelector=namespaces_selector, podSelector=blank),
    st.builds(fields, namespaceSelector=namespaces_selector, podSelector=selector),
)
protocol = st.sampled_from((*PROTOCOLS, ABSENT, None))
wanted = st.one_of(
    st.builds(fields, protocol=protocol, port=st.sampled_from((80, 81, 80, 81, *PORT_NAMES)), endPort=blank),
    st.builds(
        lambda protocol, ends: fields(protocol=protocol, port=ends[0], endPort=ends[1]),
        protocol,
        st.sampled_from(((80, 80), (79, 80), (80, 81), (81, 82), (1, 79), (82, 65535), (1, 65535), (1, 1))),
    ),
    st.builds(fields, protocol=protocol, port=blank),
)


def few(of: st.SearchStrategy[Any], bad: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """A list, or one of the ways to have none; in one of about twenty something is not understood."""
    usual = st.lists(of, min_size=1, max_size=3)
    spoiled = st.builds(lambda good, worse: [*good, worse], st.lists(of, max_size=1), st.sampled_from(bad))
    nothing = st.sampled_from((ABSENT, None, []))
    return st.integers(0, 19).flatmap(lambda n: spoiled if n == 19 else nothing if n < 5 else usual)


def rules(field: str) -> st.SearchStrategy[Any]:
    one = st.builds(
        lambda peers, ports: fields(**{field: peers, "ports": ports}), few(peer, BAD_PEERS), few(wanted, BAD_PORTS)
    )
    return st.one_of(st.lists(one, max_size=3), st.lists(one, min_size=1, max_size=2), st.sampled_from((ABSENT, None)))


types = st.sampled_from(
    (ABSENT, ABSENT, None, [], ["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Egress", "Ingress"])
)
subject = st.one_of(
    selector, st.sampled_from((ABSENT, None)), st.integers(0, 9).flatmap(
        lambda n: st.sampled_from(BAD_SELECTORS) if n == 9 else selector
    )
)  # fmt: skip
policies = st.lists(
    st.builds(
        lambda where, spec: (where, spec),
        st.sampled_from(NAMESPACES),
        st.builds(fields, podSelector=subject, policyTypes=types, ingress=rules("from"), egress=rules("to")),
    ),
    min_size=1,
    max_size=MOST_POLICIES,
)

containers = st.one_of(
    st.builds(serving).map(lambda ports: [{"name": "serve", "ports": ports}]),
    st.lists(
        st.builds(
            lambda ports, always: fields(name="c", ports=ports, restartPolicy="Always" if always else ABSENT),
            st.one_of(
                st.lists(
                    st.builds(port, st.sampled_from(PORT_NAMES[:4]), st.sampled_from((80, 81)), protocol.filter(bool)),
                    max_size=3,
                ),
                st.sampled_from((ABSENT, None)),
            ),
            st.booleans(),
        ),
        max_size=3,
    ),
)


@st.composite
def drawn_pod(draw: st.DrawFn, key: str, created: int, node: str, at: Sequence[str]) -> Json:
    state = draw(st.integers(0, 19))
    lists = draw(containers)
    first = draw(st.integers(0, len(lists)))
    given = draw(any_labels)
    return pod(
        key,
        node,
        NODES[node][:2] if state == 19 else () if state == 18 else at,
        labels=given if given in (ABSENT, None) or draw(st.booleans()) else {"pod": key[2], **given},
        phase={17: "Succeeded", 16: "Failed", 15: "Pending"}.get(state, "Running"),
        created=created,
        host_network=True if state == 19 else draw(often(ABSENT, False, None)),
        deleted="2024-05-01T12:00:00Z" if state == 14 else ABSENT,
        containers=[{key: value for key, value in one.items() if key != "restartPolicy"} for one in lists[first:]],
        init=lists[:first] or draw(often(ABSENT, None, [])),
    )


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    born = draw(st.permutations(range(12)))
    families = st.sampled_from((slice(0, 2), slice(0, 2), slice(0, 1), slice(1, 2), slice(None, None, -1)))
    pods: list[Json] = []
    for where in NAMESPACES:
        for name in NAMES:
            node, at = home(f"{where}/{name}")
            pods.append(draw(drawn_pod(f"{where}/{name}", born[len(pods)], node, at[draw(families)])))
    for number in range(draw(st.integers(0, 3))):  # which want another's address, on their own node or elsewhere
        theirs, at = home(f"{draw(st.sampled_from(NAMESPACES))}/{draw(st.sampled_from(NAMES))}")
        node = draw(st.sampled_from((theirs, *NODES)))
        where = draw(st.sampled_from(NAMESPACES))
        pods.append(draw(drawn_pod(f"{where}/{'def'[number]}", born[9 + number], node, at)))
    spaces = [
        namespace(where, draw(st.one_of(st.just({"pod": NAMES[n]}), labels))) for n, where in enumerate(NAMESPACES)
    ]
    listed = [
        {"metadata": {"namespace": where, "name": f"p{n}"}, "spec": spec}
        for n, (where, spec) in enumerate(draw(policies))
    ]
    return Cluster(pods, spaces, listed, NODES)
