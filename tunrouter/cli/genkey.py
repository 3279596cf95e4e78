"""`tunrouter genkey`: a secret that needs no stretching."""

from __future__ import annotations

import os

import typer

from tunrouter.core.keys import generate_secret


def run() -> None:
    typer.echo(generate_secret(os.urandom))
