"""`archive.py LAYOUT NAME ARCHIVE`: makes an OCI archive of an OCI layout, with a name for whoever loads it.

Law: podman reads the name in one annotation and containerd in another, so it has both; and the same layout makes the
same bytes.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


def main(layout: Path, name: str, archive: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    (manifest,) = index["manifests"]
    manifest["annotations"] = manifest.get("annotations", {}) | dict.fromkeys(NAMES, name)
    fresh = archive.with_name(f".{archive.name}")
    with tarfile.open(fresh, "w", format=tarfile.PAX_FORMAT) as whole:
        _add(whole, "index.json", json.dumps(index).encode())
        _add(whole, "oci-layout", (layout / "oci-layout").read_bytes())
        for blob in sorted((layout / "blobs").rglob("*")):
            if blob.is_file():
                _add(whole, str(blob.relative_to(layout)), blob.read_bytes())
    fresh.rename(archive)


def _add(whole: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    whole.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
