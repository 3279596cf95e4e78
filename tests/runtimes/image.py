"""The one image that all containers of these tests run: busybox alone, made here, pulled from nowhere.

Law: an OCI image layout of one layer, so that each runtime imports the very same file.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Any, Final

from tests.runtimes.cell import program
from tunrouter.errors import HostError

NAME: Final = "localhost/busybox:latest"
APPLETS: Final = ("sh", "echo", "ip", "nc", "netstat", "ping", "sleep")
"""Further names of busybox, by which it knows what to do."""
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""As images call them."""
OCI: Final = "application/vnd.oci.image"


def write(path: Path) -> None:
    """The image as a tar archive."""
    busybox = Path(program("busybox")).read_bytes()
    if b"/ld-linux" in busybox[:4096]:
        raise HostError("busybox needs libraries, which the image has none of", "apt-get install busybox-static")
    layer = _layer(busybox)
    blobs: dict[str, bytes] = {}
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "infinity"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _blob(blobs, f"{OCI}.config.v1+json", _json(config)),
        "layers": [_blob(blobs, f"{OCI}.layer.v1.tar", layer)],
    }
    names = {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME}
    described = _blob(blobs, f"{OCI}.manifest.v1+json", _json(manifest)) | {"annotations": names}
    blobs["index.json"] = _json({"schemaVersion": 2, "manifests": [described]})
    blobs["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    path.write_bytes(_tar({name: (data, 0o644) for name, data in blobs.items()}))


def _layer(busybox: bytes) -> bytes:
    return _tar({"bin/busybox": (busybox, 0o755)}, {f"bin/{applet}": "busybox" for applet in APPLETS})


def _tar(files: dict[str, tuple[bytes, int]], links: dict[str, str] | None = None) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return written.getvalue()


def _blob(blobs: dict[str, bytes], kind: str, data: bytes) -> dict[str, Any]:
    """Its descriptor, after it was put among the others."""
    digest = _digest(data)
    blobs[f"blobs/{digest.replace(':', '/')}"] = data
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()
