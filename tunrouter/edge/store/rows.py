"""Rows that others keep here: tables by name, a key, and the columns beside it; what they mean is their affair.

Law: what cannot be stored is refused where it is handed over, so that a commit fails for no reason but the disk's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final, NamedTuple

Value = int | str | bytes
Columns = tuple[Value, ...]
Place = tuple[str, Columns]
"""Of a row: its table and its key."""


class Row(NamedTuple):
    table: str
    key: Columns
    values: Columns


class Change(NamedTuple):
    """A row to write, whether it is there or not; without values, one to remove, whether it is there or not."""

    table: str
    key: Columns
    values: Columns | None


class Table(NamedTuple):
    """Columns by name, as `database.py` makes them."""

    key: Mapping[str, type[Value]]
    values: Mapping[str, type[Value]]


TABLES: Final[Mapping[str, Table]] = {
    "register": Table(
        {"kind": int, "number": int},
        {
            "promised_epoch": int,
            "promised_round": int,
            "promised_proposer": int,
            "accepted_epoch": int,
            "accepted_round": int,
            "accepted_proposer": int,
            "version": int,
            "holder": int,
            "data": bytes,
        },
    ),
    "block": Table({"place": int}, {"version": int, "state": str}),
    "lease": Table({"address": int}, {"container": str, "interface": str, "release": int, "pod": str}),
    "cluster": Table({"name": str}, {"data": bytes}),
}
_MAX_INTEGER: Final = 1 << 63


def check(place: Place, values: Columns | None) -> None:
    """Raises ValueError for what no table holds."""
    name, key = place
    table = TABLES.get(name)
    if table is None or not _fits(table.key, key) or not (values is None or _fits(table.values, values)):
        raise ValueError(f"no row of this database: {name} {key} {values}")


def write(database: sqlite3.Connection, changes: Mapping[Place, Columns | None]) -> None:
    """Rows with values are there afterwards, rows without are not."""
    for (name, key), values in changes.items():
        if values is None:
            database.execute(_REMOVE[name], key)
        else:
            database.execute(_PUT[name], key + values)


def read(database: sqlite3.Connection) -> list[Row]:
    rows = []
    for name, table in TABLES.items():
        split = len(table.key)
        rows += [Row(name, row[:split], row[split:]) for row in database.execute(_ALL[name])]
    return rows


def _fits(columns: Mapping[str, type[Value]], values: Columns) -> bool:
    if len(columns) != len(values):
        return False
    return all(type(value) is kind and _storable(value) for kind, value in zip(columns.values(), values, strict=True))


def _storable(value: Value) -> bool:
    if isinstance(value, int):
        return -_MAX_INTEGER <= value < _MAX_INTEGER
    return not isinstance(value, str) or not any("\ud800" <= char <= "\udfff" for char in value)


_PUT: Final = {
    name: f"insert or replace into {name} values ({', '.join('?' * (len(table.key) + len(table.values)))})"
    for name, table in TABLES.items()
}
_REMOVE: Final = {
    name: f"delete from {name} where {' and '.join(f'{column} = ?' for column in table.key)}"
    for name, table in TABLES.items()
}
_ALL: Final = {name: f"select {', '.join([*table.key, *table.values])} from {name}" for name, table in TABLES.items()}
