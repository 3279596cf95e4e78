"""The scenarios' own sums, and what they do to their contender, with instruments that measure nothing."""

from __future__ import annotations

import pytest

from tests.bench.fakes import FakeContender
from tunrouter.bench import instruments
from tunrouter.bench.contender import End
from tunrouter.bench.instruments import Stream
from tunrouter.bench.scenarios import LARGE, Memory, Tcp, UdpRate, chosen, fitting_payload, percentile, standard
from tunrouter.errors import ConfigError, HostError


@pytest.mark.parametrize(
    ("count", "rank", "expected"), [(1, 50, 1), (1, 99, 1), (2, 50, 1), (100, 50, 50), (100, 99, 99), (10, 99, 10)]
)
def test_a_percentile_is_the_nearest_rank(count: int, rank: int, expected: int) -> None:
    assert percentile(range(1, count + 1), rank) == expected


def test_figures_and_scenarios_have_names_of_their_own() -> None:
    scenarios = standard(LARGE)
    names = [figure.name for scenario in scenarios for figure in scenario.figures]
    assert len(names) == len(set(names))
    assert [scenario.name for scenario in scenarios] == [
        "tcp-1", "tcp-4", "tcp-reverse", "tcp-both", "loss-0.1", "loss-1", "udp-64", "udp-1400", "rtt", "memory",
    ]  # fmt: skip


def test_scenarios_are_chosen_by_name_in_their_own_order() -> None:
    scenarios = standard(LARGE)
    assert [each.name for each in chosen(scenarios, ["rtt", "tcp-1"])] == ["tcp-1", "rtt"]
    assert chosen(scenarios, []) == scenarios
    with pytest.raises(ConfigError, match="'tcp' is not known; choose from tcp-1"):
        chosen(scenarios, ["tcp"])


def test_the_larger_payload_is_what_fits_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    mtus = {"a": 1376, "b": 1420, "wide": 8876}
    monkeypatch.setattr(instruments, "mtu", lambda end: mtus[end.namespace.name[:-2]])
    assert fitting_payload([FakeContender("wide")]) == 1400
    assert fitting_payload([FakeContender("b"), FakeContender("a")]) == 1348
    assert fitting_payload([]) == 1400
    with pytest.raises(HostError, match="1400 bytes do not fit b's MTU of 1420"):
        UdpRate("udp-1400", 1400, 0.03).run(FakeContender("b"), 1)


@pytest.mark.parametrize("broken", [False, True])
def test_the_underlay_loses_only_while_it_shall(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    contender = FakeContender("a")

    def tcp(*_: object, **__: object) -> Stream:
        assert contender.losses == [1.0]
        if broken:
            raise HostError("iperf3 failed")
        return Stream(10**9, 800.0)

    monkeypatch.setattr(instruments, "tcp", tcp)
    scenario = Tcp("loss-1", "with loss", loss_percent=1.0)
    if broken:
        with pytest.raises(HostError):
            scenario.run(contender, 1)
    else:
        assert scenario.run(contender, 1) == {"loss-1": 800.0}, "and no CPU time where no process works"
    assert contender.losses == [1.0, 0]


def test_cpu_time_is_of_the_scenario_alone_and_per_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    class Working(FakeContender):
        spent = 100.0

        def cpu_seconds(self) -> float:
            self.spent += 3.0
            return self.spent

    def tcp(client: End, server: End, *options: str, seconds: int) -> Stream:
        assert (client.address, server.address, options, seconds) == ("10.0.0.1", "10.0.0.2", ("--reverse",), 4)
        return Stream(bytes=500_000_000, mbits=1000.0)

    monkeypatch.setattr(instruments, "tcp", tcp)
    values = Tcp("t", "back", ("--reverse",)).run(Working("a"), 4)
    assert values == {"t": 1000.0, "t-cpu": 6.0}


def test_memory_is_that_of_one_host() -> None:
    assert Memory().run(FakeContender("a"), 1) == {"memory": 45.0}
