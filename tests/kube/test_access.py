"""Where the API server is, and who we are, as a pod's environment and its mounted files tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kube.apiserver.certificates import make
from tunrouter.edge.kube.access import Access, find
from tunrouter.edge.kube.faults import AccessError


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("serviceaccount")
    make(directory, "127.0.0.1")
    (directory / "token").write_text("first\n")
    return directory


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://[fd00::1]:6443"),
        ({"TUNROUTER_APISERVER": "192.0.2.1", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "https://192.0.2.1:6443"),
        ({"TUNROUTER_APISERVER": "master.example:8443"}, "https://master.example:8443"),
        ({"TUNROUTER_APISERVER": "fd00::1"}, "https://[fd00::1]:6443"),
        ({"TUNROUTER_APISERVER": "[fd00::1]"}, "https://[fd00::1]:6443"),
        ({"TUNROUTER_APISERVER": "[fd00::1]:443"}, "https://[fd00::1]:443"),
        ({"TUNROUTER_APISERVER": "https://master.example"}, "https://master.example:443"),
        ({"TUNROUTER_APISERVER": " https://192.0.2.1:6443/ "}, "https://192.0.2.1:6443"),
        ({"TUNROUTER_APISERVER": "http://127.0.0.1:8001"}, "http://127.0.0.1:8001"),
    ],
)
def test_the_server_is_found(mounted: Path, environ: dict[str, str], told: str) -> None:
    assert str(find(environ, mounted)) == told


@pytest.mark.parametrize(
    ("environ", "what"),
    [
        ({}, "neither TUNROUTER_APISERVER nor KUBERNETES_SERVICE_HOST is set"),
        ({"TUNROUTER_APISERVER": "ftp://192.0.2.1"}, "no URL of a server"),
        ({"TUNROUTER_APISERVER": "https://192.0.2.1:port"}, "no URL"),
        ({"TUNROUTER_APISERVER": "https://192.0.2.1:99999"}, "no URL"),
        ({"TUNROUTER_APISERVER": "https://"}, "no URL of a server"),
        ({"TUNROUTER_APISERVER": "https://192.0.2.1/path"}, "more than host and port"),
        ({"TUNROUTER_APISERVER": "https://user@192.0.2.1"}, "more than host and port"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_next_step(mounted: Path, environ: dict[str, str], what: str) -> None:
    with pytest.raises(AccessError, match=what) as refused:
        find(environ, mounted)
    assert refused.value.fix
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_without_a_service_account_nothing_exits(mounted: Path, tmp_path: Path, missing: str) -> None:
    for name in {"token", "ca.crt"} - {missing}:
        (tmp_path / name).write_text((mounted / name).read_text())
    with pytest.raises(AccessError, match=f"{missing} is missing") as refused:
        Access("https://192.0.2.1", tmp_path)
    assert "automountServiceAccountToken" in refused.value.fix
    (tmp_path / missing).write_text(" \n")
    with pytest.raises(AccessError, match="empty"):
        Access("https://192.0.2.1", tmp_path)


def test_an_authority_that_is_none_is_told(mounted: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    (tmp_path / "ca.crt").write_text("no certificate, but ünïcode")
    with pytest.raises(AccessError, match="no certificate"):
        Access("https://192.0.2.1", tmp_path)


def test_a_token_is_read_again_when_its_file_is_another(mounted: Path, tmp_path: Path) -> None:
    """As the kubelet does it: a link to a directory is turned to a new one."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "token").write_text(f"token {version}")
        os.utime(tmp_path / version / "token", (0, 0))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "token").symlink_to("..data/token")
    access = Access("http://127.0.0.1", tmp_path)
    assert access.token() == "token 1"
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "..data")
    assert access.token() == "token 2"
    (tmp_path / "token").unlink()
    assert access.token() == "token 2"
    assert not access.renew("token 2")


def test_a_token_is_shown_to_nobody_in_plain_text(mounted: Path) -> None:
    assert Access("http://127.0.0.1:8001", mounted).token() == "first"
    assert Access("http://[::1]:8001", mounted).token() == "first"
    assert Access("http://localhost:8001", mounted).token() == "first"
    assert Access("https://192.0.2.1", mounted).token() == "first"
    assert Access("http://192.0.2.1:8001", mounted).token() == ""


def test_a_new_authority_is_taken_and_a_spoilt_one_is_not(mounted: Path, tmp_path: Path) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text((mounted / name).read_text())
    access = Access("https://192.0.2.1", tmp_path)
    first = access.context()
    assert access.context() is first
    (tmp_path / "ca.crt").write_text("half a certifi")
    assert access.context() is first
    make(tmp_path, "127.0.0.1")
    assert access.context() is not first
