"""What kustomize makes of the base and of each overlay, and parts of it that tests ask for."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent.parent
BASE: Final = ROOT / "k8s/base"
FILE: Final = ROOT / "k8s/tunrouter-daemonset-k8s.yaml"
OVERLAYS: Final = sorted((ROOT / "k8s/overlays").iterdir())
Tree = dict[str, Any]


@functools.cache
def text(folder: Path) -> str:
    return subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True).stdout


def parsed(manifest: str) -> list[Tree]:
    return [document for document in yaml.safe_load_all(manifest) if document]


@functools.cache
def objects(folder: Path) -> list[Tree]:
    """Not to be changed: everybody gets the same ones."""
    return parsed(text(folder))


def the(kind: str, folder: Path = BASE, namespace: str = "kube-system") -> Tree:
    (found,) = (
        one
        for one in objects(folder)
        if one["kind"] == kind and one["metadata"].get("namespace", namespace) == namespace
    )
    return found


def pod(folder: Path = BASE) -> Tree:
    found: Tree = the("DaemonSet", folder)["spec"]["template"]["spec"]
    return found


def container(name: str, folder: Path = BASE) -> Tree:
    (found,) = (one for one in pod(folder)["containers"] if one["name"] == name)
    return dict(found)
