"""A run's record: what was measured where, by whom, with every raw value. Its JSON form is what `results/` holds.

Law: fields are only added, and `schema` grows when one changes its meaning. A record on disk is always whole: it is
written beside its place and moved there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tunrouter.bench.contender import Better
from tunrouter.bench.fabric import Offloads
from tunrouter.bench.machine import Machine
from tunrouter.bench.rounds import Sample
from tunrouter.errors import HostError

SCHEMA: Final = 1


class Underlay(msgspec.Struct, frozen=True):
    """What joins the hosts."""

    name: str
    title: str
    offloads: Offloads = "off"
    mtu: int = 1500


class Entrant(msgspec.Struct, frozen=True):
    """Who took part."""

    name: str
    version: str
    mtu: int
    """Of its pods."""
    largest_frame: int
    """IP bytes of the longest frame that it was seen to put on the underlay."""


class Column(msgspec.Struct, frozen=True):
    """One figure that was asked for."""

    name: str
    title: str
    unit: str
    better: Better
    scenario: str


class Stage(msgspec.Struct):
    """One underlay's part of a run."""

    underlay: Underlay
    figures: list[Column] = []
    entrants: list[Entrant] = []
    absent: dict[str, str] = {}
    """Who could not take part, with the reason."""
    samples: list[Sample] = []

    def reason(self, contender: str, figure: str) -> str:
        """Why this contender has no value of this figure."""
        if contender in self.absent:
            return f"{contender} is left out: {self.absent[contender]}"
        if contender not in {entrant.name for entrant in self.entrants}:
            return f"{contender} was not in this run"
        scenario = next((column.scenario for column in self.figures if column.name == figure), "")
        errors = [
            sample.error for sample in self.samples
            if sample.contender == contender and sample.scenario == scenario and sample.error
        ]  # fmt: skip
        return f"{contender}: {errors[-1]}" if errors else f"{figure} of {contender} was not measured"


class Report(msgspec.Struct):
    machine: Machine
    revision: str
    started: str
    """UTC, ISO 8601."""
    command: str
    rounds: int
    seconds: int
    schema: int = SCHEMA
    stages: list[Stage] = []

    @property
    def place(self) -> str:
        """The machine in a line."""
        return f"{self.machine.cpus} × {self.machine.cpu}, {self.machine.system}, TCP {self.machine.congestion_control}"

    def save(self, path: Path) -> None:
        fresh = path.with_suffix(path.suffix + ".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        fresh.replace(path)


def load(path: Path) -> Report:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as error:
        raise HostError(f"cannot read {path}: {error}") from None
