"""Another revision is checked out beside this one, and nothing of it stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks import baseline, revisions
from tunrouter.errors import ConfigError, HostError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    for argv in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@example.org"]):
        git(place, *argv)
    (place / "tunrouter").mkdir()
    for text in ("old", "new"):
        (place / "tunrouter/a").write_text(text)
        git(place, "add", "tunrouter")
        git(place, "commit", "-q", "-m", text)
    return place


def git(place: Path, *argv: str) -> str:
    return subprocess.run(["git", "-C", str(place), *argv], check=True, capture_output=True, text=True).stdout


def test_a_revision_is_there_for_a_while(repository: Path) -> None:
    commit = revisions.resolve("HEAD~1", repository)
    with revisions.checked_out(commit, repository) as place:
        assert (place / "tunrouter/a").read_text() == "old"
        assert (repository / "tunrouter/a").read_text() == "new"
    assert not place.parent.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_it_is_gone_also_when_its_build_fails(repository: Path) -> None:
    (repository / "setup.py").write_text("raise SystemExit('no compiler today')")
    git(repository, "add", "setup.py")
    git(repository, "commit", "-q", "-m", "it builds")
    with (
        pytest.raises(HostError, match="no compiler today"),
        revisions.checked_out(revisions.resolve("HEAD", repository), repository),
    ):
        pytest.fail("it was built")
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_kernel_that_was_silently_not_compiled_is_no_base(tmp_path: Path) -> None:
    plane = tmp_path / "tunrouter/dataplane"
    plane.mkdir(parents=True)
    (plane / "build.py").touch()
    (tmp_path / "setup.py").write_text("")
    with pytest.raises(HostError, match="was not built"):
        revisions.build(tmp_path)
    (plane / "_kernel.abi3.so").touch()
    revisions.build(tmp_path)


@pytest.mark.parametrize("name", ["nonesuch", "--help", "HEAD:tunrouter"])
def test_what_is_no_revision_is_refused(repository: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no revision"):
        revisions.resolve(name, repository)


def test_a_baseline_is_taken_from_a_clean_checkout_only(repository: Path) -> None:
    assert baseline.clean_commit(repository) == git(repository, "rev-parse", "HEAD").strip()
    (repository / "notes.txt").write_text("not measured")
    baseline.clean_commit(repository)
    (repository / "tunrouter/b").write_text("not committed")
    with pytest.raises(HostError, match="commit them"):
        baseline.clean_commit(repository)
