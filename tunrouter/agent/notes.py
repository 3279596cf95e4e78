"""Deletions that the CNI plugin could not tell the agent: a file each, written by the plugin, worked off here.

Law: a note is whole or is not there (the plugin renames it into place), and it is removed only after its work is done.
A file that is no note is put aside, so that it is neither lost nor looked at again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

SUFFIX: Final = ".json"
ASIDE: Final = ".bad"
MAX_BYTES: Final = 4096
log = logging.getLogger("tunrouter.cni")


class Note(msgspec.Struct, frozen=True):
    network: str
    container: str
    interface: str
    path: Path = Path()
    """Where it stands."""


class _Written(msgspec.Struct, frozen=True):
    network: str
    container: str
    interface: str


class Notes:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> Iterator[Note]:
        """In no order. A directory that is missing has none."""
        try:
            paths = [Path(entry.path) for entry in os.scandir(self._directory) if entry.name.endswith(SUFFIX)]
        except FileNotFoundError:
            return
        for path in paths:
            try:
                with path.open("rb") as file:
                    written = msgspec.json.decode(file.read(MAX_BYTES), type=_Written)
                yield Note(written.network, written.container, written.interface, path)
            except msgspec.DecodeError as error:
                log.warning("%s is no note of a deletion and is put aside: %s", path, error)
                _put_aside(path)
            except OSError as error:
                log.warning("%s cannot be read yet: %s", path, error)

    def done(self, note: Note) -> None:
        note.path.unlink(missing_ok=True)


def _put_aside(path: Path) -> None:
    try:
        path.rename(path.with_suffix(ASIDE))
    except OSError as error:
        log.warning("%s cannot be put aside: %s", path, error)
