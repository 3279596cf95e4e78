"""Who judges the program knows nothing of it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SPEC = Path(__file__).parent / "spec"


def test_the_evaluator_imports_nothing_but_itself_and_the_standard_library() -> None:
    found = set()
    for path in SPEC.rglob("*.py"):
        assert "__import__" not in path.read_text()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add("." * node.level + (node.module or ""))
    assert "tests.policy.spec.cluster" in found
    standard = {one for one in found if one.partition(".")[0] in sys.stdlib_module_names and "importlib" not in one}
    assert {one for one in found - standard if not one.startswith("tests.policy.spec.")} == set()
