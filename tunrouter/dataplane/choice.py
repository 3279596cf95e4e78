"""Which kernel moves the packets: the one place that knows that there is more than one."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Final

from tunrouter.dataplane.kernel import Emit, Kernel, Tun, Udp
from tunrouter.dataplane.reference import ReferenceKernel

log = logging.getLogger(__name__)

VARIABLE: Final = "TUNROUTER_KERNEL"
"""`reference` takes the Python kernel although there is a compiled one: to compare them, or to part their faults."""


def open_kernel(tun: Tun, udps: Sequence[Udp], emit: Emit) -> Kernel:
    """The fastest kernel that this installation has."""
    if os.environ.get(VARIABLE) == ReferenceKernel.name:
        return ReferenceKernel(tun, udps, emit)
    try:
        from tunrouter.dataplane.compiled import CompiledKernel
    except ImportError as error:
        log.error(  # noqa: TRY400  (what could not be loaded is said; where in Python it failed helps nobody)
            "SLOW: packets go through the Python kernel, because the compiled one cannot be loaded (%s); "
            "install a C compiler and Python's headers (apt-get install gcc python3-dev), then install tunrouter again",
            error,
        )
        return ReferenceKernel(tun, udps, emit)
    return CompiledKernel(tun, udps, emit)
