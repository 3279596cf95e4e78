"""What a run in the lab shows its user: steps with their times, progress, a table. Plain lines where no terminal is.

Law: a line is printed when its step is done, so the last line says how far a failed run came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

PLAIN_SHARE: Final = 0.25
"""Without a terminal, progress is one line each quarter."""


class Screen:
    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.started = time.monotonic()

    def say(self, line: str) -> None:
        # Not through rich, which repeats what it printed when Ctrl-C strikes before it has emptied its buffer.
        self.console.file.write(f"{line}\n")
        self.console.file.flush()

    def done(self, what: str) -> None:
        """A finished step, with the time since the start in front."""
        self.say(f"{time.monotonic() - self.started:6.1f} s  {what}")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yields the function that is told how many bytes are through."""
        if not self.console.is_terminal:
            yield self._plain(what, total)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda through: bar.update(task, completed=through)

    def _plain(self, what: str, total: int) -> Callable[[int], None]:
        shown = 0

        def report(through: int) -> None:
            nonlocal shown
            quarter = int(through / total / PLAIN_SHARE)
            if quarter > shown:
                shown = quarter
                self.done(f"{what}: {through >> 20} of {total >> 20} MiB")

        return report

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if not self.console.is_terminal:
            widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
            self.say(f"\n{title}")
            for row in (heads, *rows):
                self.say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            return
        table = Table(*heads, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
