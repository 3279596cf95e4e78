"""Whether container runtimes take our network for pods, and have all that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge.runtimes import LIST, Directories

NAME: Final = "runtimes"
INSTALL: Final = "tunrouter cni install"


def runtimes(patient: Patient) -> Iterator[Finding]:
    known = patient.known
    where = Directories(Path(known.cni_bin_dir), Path(known.cni_conf_dir))
    if not where.conflist.exists():
        yield Finding(NAME, "ok", f"no {LIST}, so no runtime asks us; {INSTALL} makes it")
        return
    missing = _missing(where)
    if missing:
        what = f"{where.conflist} names {' and '.join(missing)}, and {where.binaries} has no such program"
        yield Finding(NAME, "fail", what, INSTALL)
    if hindrance := where.hindrance():
        yield Finding(NAME, "fail", hindrance, f"{INSTALL} --cni-exclusive; else rename it yourself")
    if not missing and not hindrance:
        yield Finding(NAME, "ok", f"{LIST} comes first in {where.configurations}")


def _missing(where: Directories) -> list[str]:
    """Plugins of our list that are not there to be run; of one that is no list, ours."""
    try:
        named = [str(plugin["type"]) for plugin in json.loads(where.conflist.read_text())["plugins"]]
    except (OSError, ValueError, KeyError, TypeError):
        named = [where.plugin.name]
    found = (where.binaries / name for name in named)
    return [path.name for path in found if not (path.is_file() and path.stat().st_mode & 0o111)]
