"""The evaluator itself, by cells that were stated by hand from the API's documentation."""

from __future__ import annotations

import pytest

from tests.policy.objects import cells_stated
from tests.policy.spec.evaluator import allowed
from tests.policy.stated import DEFAULTS, SELECTORS, Stated, statements
from tests.policy.stated_ends import ADDRESSES, FAULTS, PORTS

EVERY = (*DEFAULTS, *SELECTORS, *PORTS, *ADDRESSES, *FAULTS)


@pytest.mark.parametrize("stated", EVERY, ids=lambda stated: stated.name)
def test_cells_are_as_they_were_stated(stated: Stated) -> None:
    for text, expected in ((stated.may, True), (stated.may_not, False)):
        for said in statements(text):
            found = {cell: allowed(stated.cluster, *cell) for cell in cells_stated(stated.cluster, said)}
            assert found, f"{said}: there is no such cell"
            assert {cell for cell, answer in found.items() if answer is not expected} == set(), said
