"""A host's own addresses on the bridge: /32 as a gateway's, kept, put back, and taken off again."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import pytest

from tests.host.lab import BLOCK, GATEWAY, PLAN, Lab, Tun, wait_until
from tests.host.test_blocks import ONE, TWO, addresses, arrives, leaves, own, picture, settle
from tunrouter.errors import HostError
from tunrouter.host import Host

pytestmark = pytest.mark.root

MINE, OTHER = BLOCK[77], BLOCK[78]


def expose(lab: Lab, host: Host, *exactly: IPv4Address) -> list[str]:
    return lab.inside(lambda: host.expose(exactly))


@pytest.mark.parametrize("nf_call", [0, 1])
def test_it_is_reached_by_pods_and_through_the_tunnel_and_the_gateway_still_speaks(lab: Lab, nf_call: int) -> None:
    lab.nf_call(nf_call)
    host = lab.host(ONE, TWO)
    expose(lab, host, MINE)
    lab.inside(host.apply)
    tun, a, b = Tun(lab), lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.2.2")
    assert addresses(lab, "weave") == {f"{GATEWAY}/32", f"{MINE}/32"}
    assert addresses(lab, PLAN.tun) == {f"{GATEWAY}/32"}
    assert a.pings(str(MINE))
    assert b.pings(str(MINE))
    assert arrives(lab.host_ns, tun, str(MINE))
    assert leaves(lab, tun, lab.host_ns) == GATEWAY.packed
    assert leaves(lab, tun, lab.host_ns, str(MINE)) == MINE.packed, "as it is, not translated"
    assert lab.host_ns.pings("10.32.2.2", "-I", str(MINE))
    tun.close()


def test_it_comes_and_goes_beside_what_is_there(lab: Lab) -> None:
    host = lab.host()
    lab.inside(host.apply)
    pod = lab.pod(host, "10.32.1.2")
    settle(lab, host)
    before = picture(lab)
    assert expose(lab, host, MINE) == [f"weave address {MINE}/32"]
    assert expose(lab, host, MINE) == []
    expose(lab, host, OTHER)
    assert addresses(lab, "weave") == {f"{GATEWAY}/32", f"{OTHER}/32"}
    assert pod.pings(str(OTHER))
    assert not pod.pings(str(MINE))
    expose(lab, host)
    assert picture(lab) == before


def test_it_outlives_the_gateway_and_the_agent(lab: Lab) -> None:
    host = lab.host(TWO, ONE)
    lab.inside(host.apply)
    expose(lab, host, MINE)
    own(lab, host, ONE)
    assert addresses(lab, "weave") == {f"{GATEWAY}/32", f"{MINE}/32"}
    before = picture(lab)
    monitor = lab.host_ns.start("ip", "-o", "monitor", "address")
    again = lab.host(ONE)
    expose(lab, again, MINE)
    lab.inside(again.apply)
    assert picture(lab) == before
    monitor.terminate()
    assert not re.findall(f"Deleted.*{MINE}", monitor.communicate()[0])


@pytest.mark.parametrize(
    "command",
    [
        ("ip", "-4", "addr", "flush", "dev", "weave"),
        ("ip", "addr", "del", f"{MINE}/32", "dev", "weave"),
        ("ip", "link", "del", "weave"),
    ],
    ids=" ".join,
)
def test_it_is_put_back(lab: Lab, command: tuple[str, ...]) -> None:
    host = lab.host()
    lab.inside(host.apply)
    expose(lab, host, MINE)
    lab.host_ns.run(*command)
    assert f"weave address {MINE}/32" in lab.inside(host.repair)
    assert addresses(lab, "weave") == {f"{GATEWAY}/32", f"{MINE}/32"}


def test_what_fails_half_way_is_finished_by_the_repair(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> list[str]:
        raise HostError("routes", "again")

    host = lab.host()
    lab.inside(host.apply)
    expose(lab, host, MINE)
    settle(lab, host)
    with monkeypatch.context() as broken:
        broken.setattr("tunrouter.host.ways.Ways.ensure", fails)
        with pytest.raises(HostError):
            expose(lab, host, OTHER)
    wait_until(lambda: f"weave lost {MINE}/32" in lab.inside(host.repair))
    assert addresses(lab, "weave") == {f"{GATEWAY}/32", f"{OTHER}/32"}
