"""The clock: an incarnation follows from it, so a node whose clock went back is taken for an older one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from tunrouter.doctor.finding import Finding
from tunrouter.doctor.patient import Patient
from tunrouter.edge.clock import synchronised

EARLIEST: Final = 1_735_689_600
"""2025-01-01: no node of this product can have lived earlier."""
LATEST: Final = 4_102_444_800
"""2100-01-01."""


def clock(patient: Patient) -> Iterator[Finding]:
    fix = "set the clock: timedatectl set-ntp true"
    if not EARLIEST <= patient.now <= LATEST:
        year = time.gmtime(patient.now).tm_year
        yield Finding("clock", "fail", f"the clock says {year}: peers take this node for an older one", fix)
    elif not synchronised():
        yield Finding("clock", "warn", "nobody keeps the clock right", fix)
    else:
        yield Finding("clock", "ok", "the clock is kept right")
