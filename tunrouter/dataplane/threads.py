"""A kernel's own threads: each waits and works outside the interpreter until it is told to stop.

Law: who closes descriptors stops the threads first; a number that is used again would be read by the wrong one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from tunrouter.dataplane.kernel import Loop


class Threads:
    """`on_end` is called by a thread that ended by itself: a descriptor of it is gone."""

    def __init__(self, loops: Sequence[Loop], on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._threads = [threading.Thread(target=self._run, args=(loop,), daemon=True) for loop in loops]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _run(self, loop: Loop) -> None:
        try:
            loop(self._stop)
        finally:
            if not self._stopping:
                self._on_end()

    def stop(self) -> None:
        """Returns when the last one has finished its batch."""
        self._stopping = True
        os.eventfd_write(self._stop, 1)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        os.close(self._stop)
