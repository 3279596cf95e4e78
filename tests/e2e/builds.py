"""Builds of other versions of the protocol, made from this very tree: a copy of the package with some lines changed.

The next one has all that a version may add: a field more in every kind of message and record, a kind of record and one
of control body that nobody knows, bytes behind the first message, a table more in the store.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tunrouter.bench.agent import PACKAGE

Change = tuple[str, str]
"""What stands in a file, once, and what stands there then."""


def behind(what: str, more: str) -> Change:
    return what, what + more


def ahead(what: str, more: str) -> Change:
    return what, more + what


def appended(field: str, following: str) -> Change:
    """A field more, the last one, of what stands before the class `following`."""
    return ahead(f"\n\nclass {following}(", f"    {field}\n")


_NOVELTY: Final = """class Novelty(msgspec.Struct, frozen=True, array_like=True, tag=40):
    text: str = "new"


"""
_FASHION: Final = """class FashionBody(msgspec.Struct, frozen=True, array_like=True, tag=5):
    colour: str = "mauve"


"""
NEXT: Final[dict[str, tuple[Change, ...]]] = {
    "core/versions.py": (("NEWEST: Final = 1\n", "NEWEST: Final = 2\n"),),
    "core/wire.py": (
        ("_FIRST.pack(*first).ljust", '(_FIRST.pack(*first) + b"capable").ljust'),
        appended('speaks: tuple[str, ...] = ("novelty",)', following="Confirm"),
        appended("mood: int = 3", following="Pong"),
        ahead("AgentBody = BenchAsk", _NOVELTY),
        behind("    | LeasesAsk\n", "    | Novelty\n"),
    ),
    "core/session.py": (behind("    def _ping(self, now: float) -> None:\n", "        self.say(wire.Novelty())\n"),),
    "core/record.py": (
        appended('features: tuple[str, ...] = ("novelty",)', following="Link"),
        appended("weight: int = 7", following="LinksBody"),
        appended("since: int = 1", following="BlocksBody"),
        ahead("class LinksBody", _FASHION),
        ("Body = NodeBody |", "Body = FashionBody | NodeBody |"),
        ("= {NodeBody: NODE,", "= {FashionBody: 5, NodeBody: NODE,"),
    ),
    "core/mesh.py": (
        behind("from tunrouter.core.record import ", "FashionBody, "),
        ahead("        self.gossip.announce(NodeBody(", "        self.gossip.announce(FashionBody())\n"),
    ),
    "edge/store/database.py": (ahead(')\n"""Step n leads', '    "create table novelty (text text);",\n'),),
}
AFTER_NEXT: Final[dict[str, tuple[Change, ...]]] = {
    "core/versions.py": (("NEWEST: Final = 1\n", "NEWEST: Final = 3\n"),)
}


def build(changes: dict[str, tuple[Change, ...]], directory: Path) -> Path:
    """The folder from which Python runs that build."""
    shutil.copytree(PACKAGE / "tunrouter", directory / "tunrouter", ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in changes.items():
        file = directory / "tunrouter" / name
        text = file.read_text()
        for before, after in edits:
            assert text.count(before) == 1, f"{name} has changed; this stands there no more, or twice: {before!r}"
            text = text.replace(before, after)
        file.write_text(text)
    return directory
