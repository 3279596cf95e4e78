"""What a pod sends in the name of others reaches nobody and harms nobody: the tests that each runtime takes over.

Law: what counts is the pod's own end of the pair, which the runtime made. The frames come from sockets of the test
process in that namespace, for no program in an image sends such things.
"""

from __future__ import annotations

import itertools
import os

from tests.runtimes import forged
from tests.runtimes.forged import BROADCAST, GROUP6
from tests.runtimes.scene import CONTROL, INTAKE, Scene
from tunrouter.bench.agent import PORT as TUNNEL

NOWHERE = {"everybody": "255.255.255.255", "a group": "224.0.0.1", "a loopback": "127.0.0.1"}
NOBODY = {"a stranger": "198.51.100.9", "an address nobody has": "10.32.1.200", "a loopback": "127.0.0.1",
          "no address": "0.0.0.0"}  # fmt: skip


class Spoofing:
    def test_packets_from_an_address_of_others_reach_nobody(self, scene: Scene) -> None:
        senders = {"its own MAC": scene.mac, "the neighbour's": scene.mac_of_neighbour}
        frames = forged.packets(scene.places | NOBODY, scene.places | NOWHERE, senders, scene.doors)
        assert scene.attack(frames) == {}

    def test_packets_from_a_mac_of_others_reach_nobody(self, scene: Scene) -> None:
        stolen = {"the neighbour's": scene.mac_of_neighbour, "the gateway's": scene.gateway}
        chance = {"one of chance": b"\x02" + os.urandom(5)}
        own = {"its own address": scene.attacker.address}
        frames = forged.packets(own, scene.places | NOWHERE, stolen | chance, scene.doors)
        assert scene.attack(frames) == {}

    def test_nobody_ends_a_connection_of_others(self, scene: Scene) -> None:
        senders = {"its own MAC": scene.mac, "the neighbour's": scene.mac_of_neighbour}
        assert scene.attack(forged.resets(scene.talks, senders, scene.gateway)) == {}

    def test_what_arp_says_of_others_is_heard_by_nobody(self, scene: Scene) -> None:
        own = {"its own address": scene.attacker.address}
        others = scene.places | NOBODY
        doors = scene.doors
        elsewhere = {"the neighbour": scene.mac_of_neighbour, "the gateway": scene.gateway, "all": BROADCAST}
        scene.show_kinds(forged.claims(own, scene.mac, scene.mac, {CONTROL: BROADCAST}))
        frames = itertools.chain(
            forged.claims(others, scene.mac, scene.mac, doors),
            forged.claims(others, scene.mac, scene.mac_of_neighbour, doors),
            *(forged.claims(own, owner, scene.mac, doors) for owner in elsewhere.values()),
            forged.claims(own, scene.mac, scene.mac_of_neighbour, doors),
        )
        assert scene.attack(frames) == {}

    def test_nothing_but_ipv4_and_arp_leaves_a_pod(self, scene: Scene) -> None:
        between = scene.attacker.address, scene.neighbour.address
        scene.show_kinds(forged.others(scene.mac, *between, {CONTROL: BROADCAST}))
        doors = scene.doors | {"all of IPv6": GROUP6}
        assert scene.attack(forged.others(scene.mac, *between, doors)) == {}

    def test_nobody_is_offered_an_address(self, scene: Scene) -> None:
        sources = {"itself": scene.attacker.address, "the gateway": scene.host.address, "no address": "0.0.0.0"}
        scene.show_kinds(forged.offers(sources, scene.mac, {CONTROL: BROADCAST}))
        through = scene.attack(forged.offers(sources, scene.mac, scene.doors))
        # The host hears what is for all, and looks for no address here.
        for witness in (scene.host.name, INTAKE):
            assert not [offer for offer in through.pop(witness, ()) if "from itself" not in offer]
        assert through == {}

    def test_no_pod_passes_by_the_gateway(self, scene: Scene) -> None:
        """In its own name either, but for what the gateway itself would let pass: from pod to pod."""
        own, mac = {"its own address": scene.attacker.address}, {"its own MAC": scene.mac}
        doors = {name: door for name, door in scene.doors.items() if name != "the gateway"}
        frames = forged.packets(own, scene.others_than("the neighbour") | NOWHERE, mac, doors)
        to_neighbour = {name: door for name, door in doors.items() if name != "the neighbour"}
        frames = itertools.chain(frames, forged.packets(own, scene.places, mac, to_neighbour))
        assert scene.neighbour.name not in scene.attack(frames)

    def test_no_packet_is_taken_in_that_came_past_the_bridge(self, scene: Scene) -> None:
        senders = {"its own MAC": scene.mac, "the neighbour's": scene.mac_of_neighbour}
        for port in (forged.PORT, TUNNEL):
            frames = forged.packets(scene.places | NOBODY, scene.places | NOWHERE, senders, scene.nearest, port=port)
            through = scene.attack(frames)
            assert through.keys() <= {scene.host.name}
            frames = forged.packets({"itself": scene.attacker.address}, scene.places, senders, scene.nearest, port=port)
            assert scene.attack(frames).keys() <= {scene.host.name}

    def test_no_arp_is_heard_that_came_past_the_bridge(self, scene: Scene) -> None:
        """Else a pod fills its host's table of neighbours."""
        assert scene.attack(forged.claims(scene.places | NOBODY, scene.mac, scene.mac, scene.nearest)) == {}
