"""An OCI archive with one image of one layer, read as the specification has it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import IO, Any, Final

from tunrouter import __version__

ARCHIVE: Final = "build/tunrouter-image.tar"
NAME: Final = f"docker.io/tunrouter/tunrouter:{__version__}"


class Archive:
    def __init__(self, path: Path) -> None:
        self.path = path
        (self.described,) = json.loads(self._read("index.json"))["manifests"]
        """What the index says of the image."""
        self.manifest: dict[str, Any] = json.loads(self._blob(self.described))
        self.config: dict[str, Any] = json.loads(self._blob(self.manifest["config"]))

    def layer(self) -> IO[bytes]:
        """The one there is, as a tar archive."""
        (described,) = self.manifest["layers"]
        return io.BytesIO(gzip.decompress(self._blob(described)))

    def _blob(self, described: dict[str, Any]) -> bytes:
        return self._read(f"blobs/{described['digest'].replace(':', '/')}")

    def _read(self, name: str) -> bytes:
        with tarfile.open(self.path) as archive:
            found = archive.extractfile(name)
            assert found is not None
            return found.read()
