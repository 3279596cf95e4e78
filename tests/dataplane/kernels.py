"""The kernels that tests of the data plane run on: each has to keep the same laws, byte for byte.

A kernel joins by a line in `MAKERS`; a test gets its kernel's name by the fixture `kernel`, once for each, and opens it
through `pair.Side`. `SIM_KERNEL=name` puts the simulated internet (tests/sim) on another one than the reference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from tests.dataplane.wires import compiled, narrow
from tunrouter.dataplane.kernel import Emit, Kernel, Tun, Udp
from tunrouter.dataplane.reference import ReferenceKernel

MAKERS: Final[dict[str, Callable[[Tun, Sequence[Udp], Emit], Kernel]]] = {
    "reference": ReferenceKernel,
    "compiled": compiled,
    "compiled-narrow": narrow,
}
KERNELS: Final = list(MAKERS)
REFERENCE: Final = "reference"
SIM_KERNEL: Final = os.environ.get("SIM_KERNEL", REFERENCE)


def open_kernel(name: str, tun: Tun, udps: Sequence[Udp], emit: Emit) -> Kernel:
    return MAKERS[name](tun, udps, emit)
