"""wireguard-go between two hosts of the same lab, for comparison: `python -m tunrouter.bench.wireguard`.

    pod ── veth ── bridge ── routing ── wg ── underlay ── wg ── routing ── bridge ── veth ── pod

Law: both tunnels carry pod to pod over the same underlay, on the same machine, in the same run, in turns (A B A B …),
so that what else the machine does weighs on both; medians are compared. The binary comes from a distribution's package,
fetched into a cache of ours without touching the machine's apt configuration.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final

from tunrouter.bench.lab import Host, Lab, Pod
from tunrouter.bench.namespaces import Namespace, run, start_time, stop, wait_until
from tunrouter.bench.traffic import IperfServer
from tunrouter.errors import HostError, TunrouterError

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "tunrouter-bench"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCE: Final = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n"
SOCKETS: Final = Path("/var/run/wireguard")
PORT: Final = 51820
MTU: Final = 1420


def fetch() -> Path:
    """The wireguard-go binary, downloaded once: Debian trixie's, or this machine's own where Debian's keys are not."""
    binary = CACHE / "root/usr/bin/wireguard-go"
    if binary.exists():
        return binary
    (CACHE / "debs").mkdir(parents=True, exist_ok=True)
    apt = trixie() if KEYRING.exists() else ["apt-get", "-q"]
    done = subprocess.run(
        [*apt, "download", "wireguard-go"], cwd=CACHE / "debs", check=False, capture_output=True, text=True
    )
    packages = sorted((CACHE / "debs").glob("wireguard-go_*.deb"))
    if done.returncode or not packages:
        raise HostError(f"apt-get could not fetch wireguard-go: {done.stderr.strip()[-200:]}", "apt-get update")
    run(["dpkg-deb", "-x", str(packages[-1]), str(CACHE / "root")])
    shutil.rmtree(CACHE / "lists", ignore_errors=True)
    return binary


def trixie() -> list[str]:
    """apt-get with lists and sources of its own, brought up to date."""
    for part in ("lists/partial", "archives/partial"):
        (CACHE / part).mkdir(parents=True, exist_ok=True)
    (CACHE / "sources.list").write_text(SOURCE)
    options = [
        f"Dir::Etc::sourcelist={CACHE}/sources.list", "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={CACHE}/lists", f"Dir::Cache={CACHE}", f"Dir::Cache::archives={CACHE}/archives",
        "APT::Sandbox::User=root",
    ]  # fmt: skip
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    run([*apt, "update"], seconds=300)
    return apt


def version() -> str:
    """The package's version, from its file name."""
    return sorted((CACHE / "debs").glob("wireguard-go_*.deb"))[-1].name.split("_")[1]


class Gateway:
    """One host with wireguard-go, a bridge and one pod behind it."""

    def __init__(self, host: Host, binary: Path) -> None:
        self.host = host
        self.namespace: Namespace = host.namespace
        # The control socket's name is machine-wide, so the device's carries the owner.
        self.device = f"tlwg{os.getpid()}n{host.number}"
        self.network = f"10.40.{host.number}"
        self.pod = host.make_namespace("wg")
        self.pod.address = f"{self.network}.2"
        private = run(["wg", "genkey"]).stdout
        self.public = run(["wg", "pubkey"], stdin=private).stdout.strip()
        self._key = host.agent.directory / "wg.key"
        self._key.touch(mode=0o600)
        self._key.write_text(private)
        self._log = host.agent.directory / "wireguard-go.log"
        with self._log.open("ab") as log:
            environment = dict(os.environ) | {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
            self.process = self.namespace.spawn(str(binary), self.device, stdout=log, env=environment)

    def join(self, peer: Gateway) -> None:
        socket = SOCKETS / f"{self.device}.sock"
        wait_until(f"wireguard-go on {self.host.name} answers (log: {self._log})", socket.exists, 5)
        self.namespace.run(
            "wg", "set", self.device, "listen-port", str(PORT), "private-key", str(self._key), "peer", peer.public,
            "allowed-ips", f"{peer.network}.0/24", "endpoint", f"{peer.host.address}:{PORT}",
        )  # fmt: skip
        self.namespace.sysctl("net.ipv4.ip_forward", 1)
        self.namespace.ip(
            f"link set {self.device} mtu {MTU} up",
            f"route add {peer.network}.0/24 dev {self.device}",
            "link add pods type bridge stp_state 0 forward_delay 0",
            f"address add {self.network}.1/24 dev pods",
            f"link add pod mtu {MTU} type veth peer name eth0 mtu {MTU} netns {self.pod.namespace.name}",
            "link set pod master pods up",
            "link set pods up",
        )
        self.pod.namespace.ip(
            f"address add {self.pod.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.network}.1",
        )

    def stop(self) -> None:
        stop(self.process)
        (SOCKETS / f"{self.device}.sock").unlink(missing_ok=True)


class WireGuard:
    """Two gateways joined by wireguard-go; a context, to be left before its lab."""

    def __init__(self, one: Host, two: Host) -> None:
        self._hosts = (one, two)
        self.gateways: list[Gateway] = []

    def __enter__(self) -> WireGuard:
        sweep_sockets()
        binary = fetch()
        try:
            self.gateways = [Gateway(host, binary) for host in self._hosts]
            one, two = self.gateways
            one.join(two)
            two.join(one)
            wait_until("a ping through wireguard-go", lambda: one.pod.ping(two.pod.address, seconds=1), 10)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.stop()

    @property
    def pods(self) -> tuple[Pod, Pod]:
        one, two = self.gateways
        return one.pod, two.pod


def sweep_sockets() -> None:
    """Removes the control sockets that a killed run left."""
    for socket in SOCKETS.glob("tlwg*n*.sock"):
        pid = socket.name.removeprefix("tlwg").partition("n")[0]
        if pid.isdigit() and start_time(int(pid)) is None:
            socket.unlink(missing_ok=True)


def measure(pods: tuple[Pod, Pod], seconds: float) -> float:
    """One TCP stream from the first pod to the second, in Mbit/s."""
    sender, receiver = pods
    with IperfServer(receiver.namespace) as server:
        return server.tcp(sender.namespace, receiver.address, seconds=seconds)


def compare(rounds: int, seconds: float, *, offloads: bool, mtu: int) -> float:
    """Prints each round and the medians; the ratio tunrouter : wireguard-go."""
    with Lab(hosts=4, mtu=mtu, offloads="on" if offloads else "off") as lab:
        lab.start_agents(password="a lab's own passphrase", hosts=lab.hosts[:2])  # noqa: S106  (nobody else's)
        ours = (lab.hosts[0].add_pod("a"), lab.hosts[1].add_pod("a"))
        wait_until("a ping through tunrouter", lambda: ours[0].ping(ours[1].address, seconds=1), 10)
        kernel = lab.hosts[0].agent.snapshot().kernel
        with WireGuard(lab.hosts[2], lab.hosts[3]) as wireguard:
            say(f"one TCP stream, pod to pod; underlay MTU {mtu}, its offloads {'on' if offloads else 'off'}; Mbit/s")
            say(f"round   tunrouter ({kernel})   wireguard-go {version()}")
            ours_seen, theirs_seen = [], []
            for number in range(rounds):
                ours_seen.append(measure(ours, seconds))
                theirs_seen.append(measure(wireguard.pods, seconds))
                say(f"{number + 1:5}   {ours_seen[-1]:21.0f}   {theirs_seen[-1]:12.0f}")
    ratio = statistics.median(ours_seen) / statistics.median(theirs_seen)
    say(f"median  {statistics.median(ours_seen):21.0f}   {statistics.median(theirs_seen):12.0f}")
    say(f"ratio   {ratio:.2f}")
    return ratio


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tunrouter.bench.wireguard", description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--mtu", type=int, default=1500, help="of the underlay")
    parser.add_argument("--offloads", action="store_true", help="leave the underlay's offloads on")
    options = parser.parse_args(argv)
    try:
        compare(options.rounds, options.seconds, offloads=options.offloads, mtu=options.mtu)
    except TunrouterError as error:
        sys.stderr.write(f"bench: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
