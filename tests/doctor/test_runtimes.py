"""A network of somebody else that wins, and programs that our own names and that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.patients import OURS, Patient
from tunrouter.edge.runtimes import LIST, PLUGIN

pytestmark = pytest.mark.root


@pytest.fixture
def installed(healthy: Patient, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the networks are; ours among them."""
    monkeypatch.setenv("TUNROUTER_CNI_BIN_DIR", healthy.known.cni_bin_dir)
    monkeypatch.setenv("TUNROUTER_CNI_CONF_DIR", healthy.known.cni_conf_dir)
    (found,) = (f for f in healthy.findings() if f.check == "runtimes")
    assert found.level == "ok"
    if "tunrouter cni install makes it" in found.text:
        healthy.run("sh", "-c", f"{OURS}\ntunrouter cni install")
    return Path(healthy.known.cni_conf_dir)


def test_a_network_that_wins_is_named_and_set_aside(healthy: Patient, installed: Path) -> None:
    (installed / "10-later.conflist").write_text("{}")
    assert healthy.ailments() == []
    (installed / "00-first.conflist").write_text("{}")
    (found,) = healthy.finds("runtimes", f"{installed}/00-first.conflist comes before {LIST}")
    assert healthy.obey([found]) == ["tunrouter cni install --cni-exclusive"]
    assert healthy.ailments() == []
    assert sorted(path.name for path in installed.iterdir()) == [
        "00-first.conflist.by-tunrouter",
        LIST,
        "10-later.conflist",
    ]


def test_a_plugin_that_is_gone_or_cannot_run_is_named_and_installed(healthy: Patient, installed: Path) -> None:
    plugin = Path(healthy.known.cni_bin_dir) / PLUGIN
    for mode in (0, 0o644):
        plugin.chmod(mode) if mode else plugin.unlink()
        (found,) = healthy.finds("runtimes", f"{installed}/{LIST} names {PLUGIN}")
        healthy.obey([found])
        assert healthy.ailments() == []
