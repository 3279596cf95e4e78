"""Text from peers and files on its way to a terminal: what could command the terminal is shown, not sent.

Law: everything `str.isprintable` refuses (control characters, ANSI escapes, direction overrides, lone surrogates)
appears as its Python escape.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import Final

COLOURS: Final = {"green": "32", "yellow": "33", "red": "31"}
_DECIMAL: Final = ("", "k", "M", "G", "T", "P")
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: str) -> str:
    """`text` on one line, harmless to any terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def cells(text: str) -> int:
    """Columns of a terminal that `printable` text takes."""
    return sum(map(_cells, text))


def fit(text: str, width: int) -> str:
    """`printable` text in exactly `width` columns, cut or filled with spaces."""
    kept, taken = "", 0
    for char in text:
        taken += _cells(char)
        if taken > width:
            taken -= _cells(char)
            break
        kept += char
    return kept + " " * (width - taken)


def _cells(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def label(name: str) -> str:
    """A label of the summary: right-aligned to the colon, as Weave's."""
    return f"{name:>15}:"


def labelled(*pairs: tuple[str, object]) -> list[str]:
    return [f"{label(name)} {printable(str(value))}".rstrip() for name, value in pairs]


def node_name(name: str, nickname: str) -> str:
    """`MAC(nickname)`, as Weave's users know a peer."""
    return printable(f"{name}({nickname})" if nickname else name)


def wants_colour() -> bool:
    """Only a terminal gets colours, and only if NO_COLOR (no-color.org) is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, *, on: bool) -> str:
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if on and colour else text


def size(count: int) -> str:
    """Bytes for people: `17B`, `1.2MiB`."""
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f}{_UNITS[unit]}" if unit else f"{count}B"


def decimal(amount: float) -> str:
    """A number for people, in three digits: `0`, `7.5`, `431`, `12.3k`, `1.25M`."""
    unit = 0
    while amount >= 999.5 and unit < len(_DECIMAL) - 1:
        amount, unit = amount / 1000, unit + 1
    digits = 0 if amount >= 99.95 or amount < 0.05 else 1 if amount >= 9.995 or not unit else 2
    return f"{amount:.{digits}f}{_DECIMAL[unit]}"


def duration(seconds: float) -> str:
    """Seconds for people: `0.3ms`, `1.5s`, `12s`, `4m10s`, `3h2m`, `5d3h`."""
    if seconds < 1:
        return f"{seconds * 1000:.1f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // below}{below_name}"
    return f"{whole}s"
