"""One underlay's part of a run: a lab with two hosts for each contender, all of them open at once, taken in turns.

Law: contenders that are idle cost the one that is measured next to nothing, and opening them anew for each turn would
cost more than measuring. Who cannot be opened is left out by name, but for those a run makes no sense without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Final

from benchmarks.gates import OURS, PLAIN
from benchmarks.report import Column, Entrant, Stage
from benchmarks.wire import Hosted, largest_frame
from tunrouter.bench import rounds, scenarios
from tunrouter.bench.contender import Contender, Scenario
from tunrouter.bench.contenders.nebula import Nebula
from tunrouter.bench.contenders.ours import Tunrouter
from tunrouter.bench.contenders.tinc import Tinc
from tunrouter.bench.contenders.veth import Veth
from tunrouter.bench.contenders.vxlan import Vxlan
from tunrouter.bench.contenders.wireguard import WireGuardGo
from tunrouter.bench.instruments import mtu
from tunrouter.bench.lab import Host, Lab
from tunrouter.bench.progress import Progress
from tunrouter.bench.rounds import Match, Sample
from tunrouter.errors import HostError, TunrouterError

Opener = Callable[[Lab, tuple[Host, Host]], AbstractContextManager[Hosted]]


def plain(lab: Lab, hosts: tuple[Host, Host]) -> Tunrouter:
    return Tunrouter(lab, hosts, name=PLAIN, encrypted=False)


CONTENDERS: Final[dict[str, Opener]] = {
    OURS: Tunrouter,
    WireGuardGo.name: WireGuardGo,
    Nebula.name: Nebula,
    Tinc.name: Tinc,
    Vxlan.name: Vxlan,
    Veth.name: Veth,
    PLAIN: plain,
}
"""In the order of the tables."""
ONLY: Final = {PLAIN: ("tcp-1",)}
"""Who takes part in these scenarios alone."""


def run(stage: Stage, openers: dict[str, Opener], names: Sequence[str], *, repeat: int, seconds: int,
        progress: Progress, save: Callable[[], None], required: Collection[str] = (OURS,)) -> None:  # fmt: skip
    """Fills the stage: every contender opened, every scenario of these names measured `repeat` times."""
    underlay = stage.underlay
    with Lab(hosts=2 * len(openers), mtu=underlay.mtu, offloads=underlay.offloads) as lab, ExitStack() as stack:
        contenders = open_all(lab, openers, stack, stage, required)
        chosen = scenarios.chosen(scenarios.standard(scenarios.fitting_payload(contenders)), names)
        matches = match(chosen, contenders)
        stage.figures = columns(chosen)

        def taken(sample: Sample) -> None:
            stage.samples.append(sample)
            save()
            progress.done(sample)

        with progress.over(rounds.turns(matches, repeat), seconds):
            rounds.run(matches, repeat, seconds, taken, begin=progress.begin)


def open_all(
    lab: Lab, openers: dict[str, Opener], stack: ExitStack, stage: Stage, required: Collection[str]
) -> list[Hosted]:
    """Each contender on two hosts of its own; entrants and absent are noted in the stage."""
    contenders = []
    for at, (name, opener) in enumerate(openers.items()):
        try:
            contender = stack.enter_context(opener(lab, (lab.hosts[2 * at], lab.hosts[2 * at + 1])))
        except TunrouterError as error:
            if name in required:
                raise HostError(f"{name} did not start: {error.what}", error.fix) from None
            stage.absent[name] = str(error)
            continue
        contenders.append(contender)
        stage.entrants.append(
            Entrant(contender.name, contender.version, mtu(contender.ends[0]), largest_frame(contender))
        )
    return contenders


def match(chosen: Sequence[Scenario], contenders: Sequence[Contender]) -> list[Match]:
    """Who takes part in which scenario."""

    def takes_part(name: str, scenario: str) -> bool:
        return name not in ONLY or scenario in ONLY[name]

    return [
        Match(scenario, tuple(each for each in contenders if takes_part(each.name, scenario.name)))
        for scenario in chosen
    ]


def columns(chosen: Sequence[Scenario]) -> list[Column]:
    return [
        Column(figure.name, figure.title, figure.unit, figure.better, scenario.name)
        for scenario in chosen
        for figure in scenario.figures
    ]
