"""Takes the password out of this process's own command line, where `ps` would show it to every user of the host.

Law: /proc/PID/cmdline is a window on the process's own memory from `arg_start` to `arg_end` (proc(5), fields 48 and 49
of /proc/PID/stat), so overwriting it there is all that is needed. Python's copy of the arguments is not touched.
"""

from __future__ import annotations

import sys

OPTION = b"--password"
_FIRST_FIELD = 3
_ARG_START = 48
_ARG_END = 49


def hide_password() -> bool:
    """Overwrites the value of each `--password VALUE` and `--password=VALUE`; says whether there was one."""
    if not any(argument.split("=", 1)[0] == OPTION.decode() for argument in sys.argv):
        return False
    import ctypes

    start, end = _bounds()
    for offset, length in password_spans(ctypes.string_at(start, end - start)):
        ctypes.memset(start + offset, ord("*"), length)
    return True


def _bounds() -> tuple[int, int]:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[_ARG_START - _FIRST_FIELD]), int(fields[_ARG_END - _FIRST_FIELD])


def password_spans(arguments: bytes) -> list[tuple[int, int]]:
    """Offset and length of each password in NUL-separated arguments."""
    spans = []
    offset = 0
    is_value = False
    for argument in arguments.split(b"\0"):
        if is_value:
            spans.append((offset, len(argument)))
        elif argument.startswith(OPTION + b"="):
            spans.append((offset + len(OPTION) + 1, len(argument) - len(OPTION) - 1))
        is_value = not is_value and argument == OPTION
        offset += len(argument) + 1
    return spans
