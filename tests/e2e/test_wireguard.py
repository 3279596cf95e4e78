"""The comparison's other side: wireguard-go carries pods of the same lab, and leaves nothing behind."""

from __future__ import annotations

import pytest

from tunrouter.bench import wireguard
from tunrouter.bench.lab import Lab
from tunrouter.bench.wireguard import SOCKETS, WireGuard

pytestmark = pytest.mark.root


def test_wireguard_carries_a_stream_between_pods_and_takes_its_sockets_with_it() -> None:
    with Lab(hosts=2, offloads="off") as lab:
        with WireGuard(*lab.hosts) as tunnel:
            devices = [gateway.device for gateway in tunnel.gateways]
            assert all((SOCKETS / f"{device}.sock").exists() for device in devices)
            assert wireguard.measure(tunnel.pods, 1.0) > 50
            sent = lab.hosts[0].namespace.run("wg", "show", devices[0], "transfer").stdout.split()[2]
            assert int(sent) > 1 << 20
        assert not any((SOCKETS / f"{device}.sock").exists() for device in devices)
