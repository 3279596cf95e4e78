"""The manifest is what every Kubernetes from 1.25 on takes, and so are its overlays, without an unknown field."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest

from tests.k8s.rendered import BASE, FILE, OVERLAYS, objects, parsed, text
from tunrouter import __version__

VERSIONS = ("1.25.0", "1.29.0", "1.33.0", "1.36.0", max(kubernetes_validate.utils.all_versions()))
PAIRS = [(BASE, version) for version in VERSIONS] + [(folder, "1.36.0") for folder in OVERLAYS]
FOREIGN = {"PodMonitor"}
"""Kinds that somebody else's definition brings."""


def test_the_file_is_what_the_base_renders() -> None:
    """If not: make manifests"""
    assert FILE.read_text().partition("\n")[2] == text(BASE)


def test_these_versions_are_known() -> None:
    """One that is not would be read as an older one."""
    assert set(VERSIONS) <= set(kubernetes_validate.utils.all_versions())


@pytest.mark.parametrize(("folder", "version"), PAIRS, ids=[f"{folder.name}-{version}" for folder, version in PAIRS])
def test_strictly_valid(folder: Path, version: str) -> None:
    for one in objects(folder):
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, version, strict=True)


def test_an_unknown_field_would_be_found() -> None:
    (one,) = (one for one in parsed(FILE.read_text()) if one["kind"] == "DaemonSet")
    one["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privilegd"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="privilegd"):
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_every_image_and_label_is_of_this_version(folder: Path) -> None:
    for one in objects(folder):
        if one["kind"] == "DaemonSet":
            pod = one["spec"]["template"]["spec"]
            images = [each["image"] for each in pod["containers"] + pod.get("initContainers", [])]
            assert set(images) == {f"tunrouter/tunrouter:{__version__}"}
            policies = {each["imagePullPolicy"] for each in pod["containers"] + pod.get("initContainers", [])}
            assert policies == {"IfNotPresent"}
            for labels in (one["metadata"]["labels"], one["spec"]["template"]["metadata"]["labels"]):
                assert labels["app.kubernetes.io/version"] == __version__
