"""Networks of an older set-up in our range: an agent does not start over them, and names those that come later."""

from __future__ import annotations

import pytest

from tests.e2e.test_exposure import warnings
from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import wait_until
from tunrouter.errors import HostError

pytestmark = pytest.mark.root

CNI0 = "cni0 has 10.40.0.1/16 (probably the bridge of another CNI plugin)"


def test_an_agent_does_not_start_over_what_is_left_and_does_when_it_is_taken_away(secret: str) -> None:
    with Lab(hosts=1, offloads="off") as lab:
        (host,) = lab.hosts
        for plant, words, remedy in (
            (("link add cni0 type bridge", "address add 10.40.0.1/16 dev cni0"), CNI0, "link delete cni0"),
            (
                (
                    "link add weave type bridge",
                    "link add vethwe-bridge type veth peer name vethwe-datapath",
                    "link set vethwe-bridge master weave",
                ),
                "bridge weave is another network's (probably Weave Net): it has a port that is not ours, vethwe-bridge",
                "link delete weave",
            ),
        ):
            host.namespace.ip(*plant)
            with pytest.raises(HostError) as caught:
                host.agent.start(password=secret)
            assert "ended with 2" in str(caught.value)
            assert words in host.agent.last_words()
            assert "tunrouter" not in host.namespace.run("nft", "list", "tables").stdout
            host.namespace.ip(remedy)
        host.agent.start(password=secret)


def test_one_that_comes_later_is_named_within_seconds_and_forgotten_when_it_goes(pair: Lab) -> None:
    host, other = pair.hosts
    assert warnings(host) == ()
    host.namespace.ip("link add cni0 type bridge", "address add 10.40.0.1/16 dev cni0", "link set cni0 up")
    wait_until("it is named", lambda: any(CNI0 in each for each in warnings(host)), 4)
    (warning,) = warnings(host)
    assert warning.endswith("in our range 10.32.0.0/12: if nothing uses it, ip link del cni0")
    assert f"warning {warning}" in host.agent.log.read_text()
    assert f"Warning: {warning}" in host.agent.command("status").stdout
    assert host.pods[0].ping(other.pods[0].address)
    host.namespace.ip("link delete cni0")
    wait_until("it is forgotten", lambda: warnings(host) == (), 4)
    assert f"not any more: {CNI0}" in host.agent.log.read_text()
