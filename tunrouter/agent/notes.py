"""Deletions that the CNI plugin could not tell the agent: a file each, written by the plugin, worked off here.

Law: a note is whole or is not there (the plugin renames it into place), and it is removed only after its work is done.
A file that is no note is put aside, so that it is neither lost nor looked at again. A plugin that was killed leaves a
draft, which nobody was told of: one that is too old to be under way is removed. Were it not, its writer could not
rename it, would say so, and would be asked again.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

SUFFIX: Final = ".json"
ASIDE: Final = ".bad"
MAX_BYTES: Final = 4096
DRAFT_SECONDS: Final = 60.0
"""A draft takes milliseconds to write; not even a disk that is very slow takes so long."""
MAX_SWEPT: Final = 256
"""Drafts that are removed in one look."""
_DRAFT: Final = re.compile(r"[0-9a-f]{32}\.[0-9]{1,10}", re.ASCII)
"""What its note is going to be called, and the writer's process."""
log = logging.getLogger("tunrouter.cni")


class Note(msgspec.Struct, frozen=True):
    network: str
    container: str
    interface: str


class Notes:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> Iterator[tuple[Path, Note]]:
        """In no order, each with where it stands. A directory that is missing has none."""
        try:
            entries = list(os.scandir(self._directory))
        except FileNotFoundError:
            return
        _sweep([entry for entry in entries if _DRAFT.fullmatch(entry.name)])
        for path in [Path(entry.path) for entry in entries if entry.name.endswith(SUFFIX)]:
            try:
                with path.open("rb") as file:
                    yield path, msgspec.json.decode(file.read(MAX_BYTES), type=Note)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                log.warning("%s is no note of a deletion and is put aside: %s", path, error)
                _put_aside(path)
            except OSError as error:
                log.warning("%s cannot be read yet: %s", path, error)

    def done(self, path: Path) -> None:
        path.unlink(missing_ok=True)


def _sweep(drafts: list[os.DirEntry[str]]) -> None:
    """Those whose writers died."""
    for draft in drafts[:MAX_SWEPT]:
        try:
            if draft.is_file(follow_symlinks=False) and time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
                os.unlink(draft.path)
                log.info("%s was left by a plugin that was killed while it wrote; removed", draft.path)
        except FileNotFoundError:
            pass  # it is a note by now
        except OSError as error:
            log.warning("%s cannot be removed: %s", draft.path, error)


def _put_aside(path: Path) -> None:
    try:
        path.rename(path.with_suffix(ASIDE))
    except OSError as error:
        log.warning("%s cannot be put aside: %s", path, error)
