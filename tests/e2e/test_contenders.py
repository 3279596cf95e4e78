"""Every contender of the comparison carries pods of a lab, and leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.wire import largest_frame
from tunrouter.bench import instruments
from tunrouter.bench.agent import PACKAGE
from tunrouter.bench.contenders import nebula, tinc, vxlan
from tunrouter.bench.contenders.ours import Tunrouter
from tunrouter.bench.contenders.rival import Rival
from tunrouter.bench.contenders.veth import Veth
from tunrouter.bench.contenders.wireguard import WireGuardGo
from tunrouter.bench.lab import Lab
from tunrouter.errors import HostError

pytestmark = pytest.mark.root

DEVICES = {vxlan.Vxlan: "vxlan0", nebula.Nebula: nebula.DEVICE, tinc.Tinc: tinc.DEVICE, Veth: "eth0"}


@pytest.mark.parametrize(
    "kind",
    [
        Veth,
        vxlan.Vxlan,
        WireGuardGo,
        *(pytest.param(kind, marks=pytest.mark.soak) for kind in (nebula.Nebula, tinc.Tinc)),
    ],
)
def test_a_rival_carries_a_stream_between_pods_over_its_own_device(kind: type[Rival]) -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        with kind(lab, (one, two)) as rival:
            device = rival.device(rival.sites[0]) if isinstance(rival, WireGuardGo) else DEVICES[kind]
            stream = instruments.tcp(*rival.ends, seconds=1)
            assert stream.mbits > 20
            counter = one.namespace.run("cat", "/proc/self/net/dev").stdout
            sent = next(int(row.split()[9]) for row in counter.splitlines() if row.strip().startswith(f"{device}:"))
            assert sent > stream.bytes
            largest = instruments.largest_payload(rival.ends[0])
            assert 1200 < largest <= 1472
            assert largest < largest_frame(rival) <= 1500
            processes = [site.process for site in rival.sites]
            cpu, resident = rival.cpu_seconds(), rival.resident_mib()
            if kind in (Veth, vxlan.Vxlan):
                assert processes == [None, None]
                assert cpu is None
                assert resident is None
            else:
                assert cpu is not None
                assert cpu > 0.05
                assert resident is not None
                assert resident > 3
        assert all(process is None or process.poll() is not None for process in processes)


def test_wireguards_control_sockets_go_with_it() -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        with WireGuardGo(lab, (one, two)) as tunnel:
            sockets = [tunnel.socket(site) for site in tunnel.sites]
            assert all(socket.exists() for socket in sockets)
        assert not any(socket.exists() for socket in sockets)


def test_ours_may_be_another_checkout_and_unencrypted(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "tunrouter", tmp_path / "tunrouter", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tunrouter/__init__.py").write_text('__version__ = "9.9.9"\n')
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        with Tunrouter(lab, (one, two), name="other", encrypted=False, package=tmp_path) as tunnel:
            assert tunnel.version.startswith("9.9.9 (kernel ")
            assert not one.agent.snapshot().encryption
            assert instruments.tcp(*tunnel.ends, seconds=1).mbits > 20


def test_super_packets_on_an_underlay_without_offloads_are_found_out() -> None:
    with Lab(hosts=2, offloads="off") as lab:
        one, two = lab.hosts
        with Veth(lab, (one, two)) as bare:
            one.namespace.run("ethtool", "-K", "eth0", "tso", "on", "gso", "on")
            with pytest.raises(HostError, match=r"veth put .* bytes in a frame on an underlay with an MTU of 1500"):
                largest_frame(bare)
