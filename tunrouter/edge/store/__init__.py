"""What a node keeps on disk."""

from tunrouter.edge.store.database import AMNESIA, DATABASE, SCHEMA, Contents, inspect
from tunrouter.edge.store.remains import erase
from tunrouter.edge.store.rows import TABLES, Change, Columns, Row, Value
from tunrouter.edge.store.store import KEY, SEED_BYTES, Store

__all__ = [
    "AMNESIA",
    "DATABASE",
    "KEY",
    "SCHEMA",
    "SEED_BYTES",
    "TABLES",
    "Change",
    "Columns",
    "Contents",
    "Row",
    "Store",
    "Value",
    "erase",
    "inspect",
]
