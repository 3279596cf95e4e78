"""Leases as the API has them, read for the core: which block, whose, and what is none of ours."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any, cast

import pytest

from tunrouter.agent.kubernetes.blocks import NAMESPACE, PEER, Blocks
from tunrouter.core import leases
from tunrouter.edge.kube.objects import Lease, Metadata, OwnerReference

RANGE = IPv4Network("10.32.0.0/12")


class Heard:
    def __init__(self) -> None:
        self.news: list[leases.News] = []
        self.blocks = Blocks(cast("Any", None), RANGE, 24, "node-a", 7, self.news.append, cast("Any", None))


def lease(name: str, peer: str = "000000000000002a", version: str = "11") -> Lease:
    owner = OwnerReference(api_version="v1", kind="Node", name="node-b", uid="uid-b")
    labels = {PEER: peer} if peer else {}
    told = Metadata(
        name=name, namespace=NAMESPACE, uid=f"uid of {name}", resource_version=version, labels=labels,
        owner_references=(owner,),
    )  # fmt: skip
    return Lease(metadata=told)


def test_a_lease_is_a_block_its_holder_and_its_owner() -> None:
    assert Heard().blocks.read(lease("10.32.5.0-24")) == leases.Lease(5, 42, 11, "uid of 10.32.5.0-24", "uid-b")


@pytest.mark.parametrize("peer", ["", "nobody", "0x", "-1" * 40])
def test_one_that_names_nobody_is_somebodys_all_the_same(peer: str) -> None:
    read = Heard().blocks.read(lease("10.32.5.0-24", peer=peer))
    assert read is not None
    assert read.holder >= 0


@pytest.mark.parametrize(
    "name", ["election", "10.32.5.0", "10.99.5.0-24", "10.32.5.7-24", "10.32.5.0-33", "-24", "::-64"]
)
def test_what_is_no_block_of_ours_is_left_alone(name: str) -> None:
    heard = Heard()
    heard.blocks.changed(lease(name))
    heard.blocks.gone(lease(name))
    assert heard.blocks.all({(NAMESPACE, name): lease(name)}) == ()
    assert heard.news == []


@pytest.mark.parametrize("name", ["10.32.5.0-26", "10.32.0.0-16", "10.0.0.0-8"])
def test_blocks_of_another_length_that_lie_across_ours_are_told(name: str) -> None:
    heard = Heard()
    heard.blocks.changed(lease(name))
    heard.blocks.gone(lease(name))
    assert heard.news == [leases.Cut(name), leases.Cut("")]


def test_changes_are_told_as_they_come() -> None:
    heard = Heard()
    thing = lease("10.32.5.0-24")
    heard.blocks.changed(thing)
    heard.blocks.gone(thing)
    read = heard.blocks.read(thing)
    assert read is not None
    assert heard.news == [leases.Made(read), leases.Gone(5, thing.metadata.uid)]
