"""Which node an inner address belongs to: longest prefix first, with a bounded memory of what was asked.

One table serves both directions: a destination's owner is where a packet goes, a source's owner is who may send it.
"""

from __future__ import annotations

from tunrouter.core import bounds


class Routes:
    """Prefixes of both families; a prefix is told from another family's by the size of its address."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], dict[int, int]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 16: []}
        self._count = 0
        self.known: dict[bytes, int] = {}
        """Answers of `owner`, to be asked first; without those that found nothing."""

    def add(self, prefix: bytes, length: int, node: int) -> bool:
        """False, without effect, if the table is full or this is no prefix."""
        size = len(prefix)
        if not _is_prefix(size, length):
            return False
        table = self._tables.setdefault((size, length), {})
        key = int.from_bytes(prefix, "big") >> (size * 8 - length)
        if key not in table:
            if self._count >= bounds.MAX_ROUTES:
                return False
            self._count += 1
        table[key] = node
        self._changed(size)
        return True

    def remove(self, prefix: bytes, length: int) -> None:
        size = len(prefix)
        if not _is_prefix(size, length):
            return
        table = self._tables.get((size, length), {})
        if table.pop(int.from_bytes(prefix, "big") >> (size * 8 - length), None) is not None:
            self._count -= 1
        if not table:
            self._tables.pop((size, length), None)
        self._changed(size)

    def _changed(self, size: int) -> None:
        self._lengths[size] = sorted((length for width, length in self._tables if width == size), reverse=True)
        self.known.clear()

    def owner(self, address: bytes) -> int | None:
        """The node whose longest prefix holds `address`."""
        node = self.known.get(address)
        if node is not None:
            return node
        bits = len(address) * 8
        number = int.from_bytes(address, "big")
        for length in self._lengths[len(address)]:
            node = self._tables[len(address), length].get(number >> (bits - length))
            if node is not None:
                if len(self.known) >= bounds.MAX_LOOKUPS:
                    self.known.clear()
                self.known[address] = node
                return node
        return None

    def nodes(self) -> set[int]:
        """Every node that owns a prefix."""
        return {node for table in self._tables.values() for node in table.values()}


def _is_prefix(size: int, length: int) -> bool:
    return size in (4, 16) and 0 <= length <= size * 8
