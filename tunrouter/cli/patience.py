"""What takes long says so: a line on stderr after a second, then every ten seconds how long it has taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

FIRST_SECONDS: Final = 1.0
NEXT_SECONDS: Final = 10.0


@contextmanager
def patience(doing: str) -> Iterator[None]:
    """`doing` is said in the present participle, for example `asking all nodes`."""
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(doing, done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _tell(doing: str, done: threading.Event) -> None:
    began = time.monotonic()
    if done.wait(FIRST_SECONDS):
        return
    typer.echo(f"{doing} …", err=True)
    while not done.wait(NEXT_SECONDS):
        typer.echo(f"{doing} … {time.monotonic() - began:.0f} s", err=True)
