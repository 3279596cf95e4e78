"""Pods of one host reach each other, the host and the outside, in both bridge modes."""

from __future__ import annotations

import pytest

from tests.host.lab import Lab

pytestmark = pytest.mark.root


@pytest.mark.parametrize("nf_call", [0, 1])
def test_pods_reach_each_other_the_host_and_the_outside(lab: Lab, nf_call: int) -> None:
    lab.nf_call(nf_call)
    host = lab.host()
    lab.inside(host.apply)
    a, b = lab.pod(host, "10.32.1.2"), lab.pod(host, "10.32.1.3")
    assert host.mode == ("hairpin" if nf_call else "isolated")
    assert a.pings("10.32.1.3")
    assert b.pings("10.32.1.2")
    assert a.pings("10.32.1.1")
    assert lab.host_ns.pings("10.32.1.2")
    assert a.pings("192.0.2.2"), "the outside has no route back, so this needs the masquerade"
    assert a.pings("10.32.1.3", "-s", "1348", "-M", "do")
