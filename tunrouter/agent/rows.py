"""The core's rows as the store keeps them: whole numbers, texts and bytes.

Law: what comes back equals what was put. The core's numbers have 64 bits, SQLite's have 63 and a sign: those of the
upper half are kept as negative ones of the same bits (`printf('%016x', holder)` shows an id as everybody else does).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any, Final

from tunrouter.core import journal
from tunrouter.edge import store

_ALL: Final = 1 << 64
_HALF: Final = 1 << 63


def changes(batch: journal.Persist) -> list[store.Change]:
    return [_change(key, row) for key, row in batch.changes.items()]


def recall(rows: Iterable[store.Row]) -> list[journal.Row]:
    return [_row(table, tuple(map(_wide, key)), tuple(map(_wide, values))) for table, key, values in rows]


def _change(key: journal.Key, row: journal.Row | None) -> store.Change:
    values = None if row is None else tuple(map(_signed, _values(row)))
    return store.Change(key[0], tuple(map(_signed, key[1:])), values)


def _values(row: journal.Row) -> store.Columns:
    match row:
        case journal.RegisterRow():
            return (*row.promised, *row.accepted, row.version, row.holder, row.data)
        case journal.BlockRow():
            return row.version, row.state
        case journal.LeaseRow():
            return row.container, row.interface, row.order, row.pod
        case journal.ClusterRow():
            return (row.data,)


def _row(table: str, key: tuple[Any, ...], values: tuple[Any, ...]) -> journal.Row:
    """The store knows what is a number, a text and bytes."""
    if table == "register":
        return journal.RegisterRow(key[0], key[1], values[:3], values[3:6], values[6], values[7], values[8])
    if table == "block":
        return journal.BlockRow(*key, *values)
    if table == "lease":
        return journal.LeaseRow(IPv4Address(key[0]), *values)
    return journal.ClusterRow(*key, *values)


def _signed(value: store.Value) -> store.Value:
    return value - _ALL if isinstance(value, int) and value >= _HALF else value


def _wide(value: store.Value) -> store.Value:
    return value + _ALL if isinstance(value, int) and value < 0 else value
