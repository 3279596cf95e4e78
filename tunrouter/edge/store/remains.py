"""What a node has left on disk, and how it goes.

Law: only what a node made is removed, by its names; whatever else lies in its directories stays, and they with it.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tunrouter.edge.store.database import DATABASE, failure
from tunrouter.edge.store.store import KEY


def erase(state: Path, notes: Path, run: Iterable[Path]) -> list[str]:
    """While no agent runs; answers with what was removed. `run` are files of its last life. Raises HostError."""
    done = []
    try:
        for path in (*_files(state), *run):
            if path.exists():
                path.unlink()
                done.append(f"file {path}")
        if notes.is_dir():
            shutil.rmtree(notes)
            done.append(f"directory {notes}")
        for directory in {state, *(path.parent for path in run)}:
            if directory.is_dir() and not any(directory.iterdir()) and _gone(directory):
                done.append(f"directory {directory}")
    except OSError as error:
        raise failure(state, error) from None
    return done


def _gone(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EROFS):
            raise
        return False  # it is mounted, as into a container with a read-only root: whoever did that takes it away
    return True


def _files(state: Path) -> Iterator[Path]:
    """The key, the database with its log, and damaged ones that were kept."""
    yield from (state / KEY, (state / KEY).with_suffix(".new"))
    yield from sorted(state.glob(f"{DATABASE}*"))
