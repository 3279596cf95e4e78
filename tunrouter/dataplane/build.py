"""How the compiled kernel is built: cffi's API mode from the C files in `c/`, with the limits of core/bounds.py.

Run by setup.py, where this package is not yet importable, so nothing of it is imported. The module is optional: where
it cannot be built, the reference kernel does its work and the agent says so.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, Final

from cffi import FFI

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
C: Final = HERE / "c"
FLAGS: Final = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror=implicit", "-fvisibility=hidden", "-pthread")
CALLBACKS: Final = (
    ("double", "stranger", "void *, const uint8_t *, uint32_t, const tr_endpoint *, double, uint64_t, uint32_t *"),
    ("void", "control", "void *, uint32_t, const tr_endpoint *, const uint8_t *, uint32_t, uint32_t"),
    ("void", "hold", "void *, uint32_t, const uint8_t *, uint32_t"),
    ("void", "wait", "void *, uint64_t, const uint8_t *, uint32_t, double"),
    ("uint32_t", "explain", "void *, const uint8_t *, uint32_t, uint32_t, uint8_t *"),
    ("void", "refused", "void *, uint32_t, uint32_t"),
    ("void", "moved", "void *, uint32_t, const tr_endpoint *"),
    ("void", "unrouted", "void *, uint64_t"),
    ("void", "hop_wanted", "void *, uint64_t"),
    ("void", "astray", "void *, uint64_t, const uint8_t *, uint32_t"),
)
"""The members of tr_events that Python implements."""


def limits() -> list[tuple[str, Any]]:
    """The numbers of core/bounds.py as macros of the same names."""
    names = runpy.run_path(str(HERE.parent / "core" / "bounds.py"))
    return [(name, repr(value)) for name, value in names.items() if name.isupper() and isinstance(value, int | float)]


def sources() -> list[str]:
    return sorted(str(file.relative_to(ROOT)) for file in C.glob("*.c"))


def make() -> FFI:
    maker = FFI()
    maker.cdef((C / "api.h").read_text())
    maker.cdef('extern "Python" {\n' + "".join(f"{kind} on_{name}({of});\n" for kind, name, of in CALLBACKS) + "}\n")
    maker.set_source(
        "tunrouter.dataplane._kernel",
        '#include <stdint.h>\n#include "api.h"\n',
        sources=sources(),
        include_dirs=[str(C.relative_to(ROOT))],
        depends=[str(file.relative_to(ROOT)) for file in C.glob("*.h")],
        define_macros=limits(),
        extra_compile_args=list(FLAGS),
        libraries=["m"],
        optional=True,
    )
    return maker


ffi = make()
