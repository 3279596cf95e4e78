"""Which kernel moves the packets: the one place that knows that there is more than one."""

from __future__ import annotations

from collections.abc import Sequence

from tunrouter.dataplane.kernel import Emit, Kernel, Tun, Udp
from tunrouter.dataplane.reference import ReferenceKernel


def open_kernel(tun: Tun, udps: Sequence[Udp], emit: Emit) -> Kernel:
    """The fastest kernel that this machine has."""
    return ReferenceKernel(tun, udps, emit)
