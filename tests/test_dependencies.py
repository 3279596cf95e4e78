"""What is imported is declared: what only a developer's environment has would be missing on a host."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = {"python-pytun": "pytun", "pynacl": "nacl", "prometheus-client": "prometheus_client"}
"""Of distributions whose module has another name."""


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def declared(*sections: str) -> set[str]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = "\n".join([config["options"]["install_requires"], *(config["options.extras_require"][s] for s in sections)])
    names = [re.split(r"[<>=]", line.strip())[0] for line in lines.splitlines() if line.strip()]
    return {MODULES.get(name, name) for name in names}


def test_every_import_of_the_program_is_declared() -> None:
    known = declared("bench") | sys.stdlib_module_names | {"tunrouter"}
    foreign = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "tunrouter").rglob("*.py")
        for module in imported(path)
        if module.partition(".")[0] not in known
    }
    assert foreign == set()
