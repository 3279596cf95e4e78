"""Whoever asks for the table of policies does not keep this process from its work, however many there are."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.kube.apiserver import Served
from tests.npc.scene import NODE, parts, served
from tunrouter.bench.namespaces import Namespace
from tunrouter.core.policy.memory import Memory
from tunrouter.core.policy.model import EVERYTHING, Address, Pod, Policy
from tunrouter.edge.api.policing import PoliciesCall

__all__ = ["served"]  # a fixture
MANY = 100


def test_each_address_here_is_looked_up_once_for_all_policies(
    served: Served, inside: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, asked = Memory.owner, list[Address]()

    def counted(memory: Memory, address: Address) -> Pod | None:
        asked.append(address)
        return owner(memory, address)

    async def scenario() -> None:
        async with parts(served, inside, tmp_path) as made:
            for number in range(MANY):
                addresses = (ip_address("10.32.0.1") + number,)
                made.compiler.put_pod(Pod("shop", f"pod-{number}", f"{number}", {}, addresses, node=NODE))
                made.compiler.put_policy(Policy("shop", f"policy-{number}", EVERYTHING, ()))
            monkeypatch.setattr(Memory, "owner", counted)
            table = await made.ask(PoliciesCall())
            assert [(row.pods, row.here) for row in table.policies] == [(MANY, MANY)] * MANY

    asyncio.run(scenario())
    assert len(asked) <= 4 * MANY
