"""Networks of an older set-up in our range: an agent does not start over them, and names those that come later."""

from __future__ import annotations

import msgspec
import pytest

from tests.e2e.test_exposure import warnings
from tunrouter.bench.agent import CLI
from tunrouter.bench.lab import Host, Lab
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


def examined(host: Host, *options: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The doctor's exit code, and the level and text of what each check found last."""
    done = host.namespace.run(*CLI, "doctor", "-o", "json", *options, check=False, env=host.agent.environment)
    found = msgspec.json.decode(done.stdout)["findings"]
    return done.returncode, {each["check"]: (each["level"], each["text"]) for each in found}


def test_one_that_comes_later_is_named_within_seconds_and_forgotten_when_it_goes(pair: Lab) -> None:
    host, other = pair.hosts
    assert warnings(host) == ()
    assert "held by another tunrouter (pid " in examined(host, "--socket", "/nowhere")[1]["port"][1]
    code, found = examined(host)
    assert [check for check, (level, _) in found.items() if level != "ok"] in ([], ["clock"])
    assert (code, found["port"], found["uplink"][1]) == (
        0,
        ("ok", "UDP 6783 is open"),
        "peers are reached through eth0",
    )
    host.namespace.ip("link add cni0 type bridge", "address add 10.40.0.1/16 dev cni0", "link set cni0 up")
    wait_until("it is named", lambda: any(CNI0 in each for each in warnings(host)), 4)
    (warning,) = warnings(host)
    assert warning.endswith("in our range 10.32.0.0/12: if nothing uses it, ip link del cni0")
    wait_until("it is told", lambda: f"warning {warning}" in host.agent.log.read_text(), 4)
    assert f"Warning: {warning}" in host.agent.command("status").stdout
    code, found = examined(host)
    assert code == 1
    assert CNI0 in found["range"][1]
    assert host.pods[0].ping(other.pods[0].address)
    host.namespace.ip("link delete cni0")
    wait_until("it is forgotten", lambda: warnings(host) == (), 4)
    wait_until("it is told", lambda: f"not any more: {CNI0}" in host.agent.log.read_text(), 4)
