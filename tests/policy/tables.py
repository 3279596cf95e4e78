"""The tables of docs/policy.md that say who reaches what, as they are written there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "policy.md"
Table = dict[tuple[str, str], str]
"""What is in a cell, by client and way."""


def table(heading: str) -> Table:
    """The only one under this heading."""
    _, _, section = DOCUMENT.read_text().partition(f"\n### {heading}\n")
    assert section, f"{DOCUMENT.name} has no section {heading!r}"
    rows = [_cells(line) for line in section.partition("\n### ")[0].splitlines() if line.startswith("|")]
    ways = rows[0][1:]
    return {(row[0], way): said for row in rows[2:] for way, said in zip(ways, row[1:], strict=True)}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
