"""The whole product on one machine, in under a minute: `python -m tunrouter.bench.demo`, or `make demo`.

Three hosts with an agent each and one shared secret, two pods on each, every pair pinged, 1 GiB sent and its SHA-256
compared, the underlay watched with tcpdump: a marker that pods exchange must not be readable there, and must be when
the agents run without a secret, which shows that the watching works.

Law: it ends with `demo: ok` and 0, or with what failed, where the agents' logs are, and 1; and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Final, Literal

from tunrouter.bench.agent import PORT
from tunrouter.bench.capture import Capture
from tunrouter.bench.lab import Host, Lab, Pod
from tunrouter.bench.namespaces import Namespace, wait_until
from tunrouter.bench.screen import Screen
from tunrouter.bench.traffic import IperfServer, Stream, send_marker
from tunrouter.bench.transfer import Result
from tunrouter.core.wire import OVERHEAD
from tunrouter.errors import HostError, TunrouterError

HOSTS: Final = 3
PODS: Final = ("a", "b")
MARKER: Final = b"tunrouter-demo: the quick brown fox crosses the underlay"
MARKER_COUNT: Final = 20
UNDERLAY: Final = "DEMO_UNDERLAY"
UNITS: Final = {"M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Options:
    size: int
    underlay: Literal[4, 6]
    forward_drop: bool
    nf_call: bool | None
    keep: bool


def parse(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="tunrouter.bench.demo", description=str(__doc__).splitlines()[0])
    parser.add_argument("--size", type=parse_size, default="1G", help="what to send, as 64M or 1G")
    underlay = f"6 for hosts without IPv4; without the option {UNDERLAY} says it"
    parser.add_argument("--underlay", type=parse_family, default=os.environ.get(UNDERLAY, "4"), help=underlay)
    parser.add_argument("--forward-drop", action="store_true", help="iptables FORWARD policy DROP on each host")
    parser.add_argument("--nf-call", choices=("0", "1"), help="bridge-nf-call-iptables on each host")
    parser.add_argument("--keep", action="store_true", help="leave the lab running at the end")
    given = parser.parse_args(argv)
    nf_call = None if given.nf_call is None else given.nf_call == "1"
    return Options(given.size, given.underlay, given.forward_drop, nf_call, given.keep)


def parse_family(text: str) -> Literal[4, 6]:
    if text not in ("4", "6"):
        raise argparse.ArgumentTypeError(f"{text!r} is no IP version; write 4 or 6")
    return 6 if text == "6" else 4


def parse_size(text: str) -> int:
    number, unit = text[:-1], text[-1:].upper()
    if unit not in UNITS or not number.isdigit() or not int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 64M or 1G")
    return int(number) * UNITS[unit]


class Demo:
    """The steps, in order; each raises a TunrouterError that says what failed."""

    def __init__(self, lab: Lab, screen: Screen, options: Options) -> None:
        self.lab = lab
        self.screen = screen
        self.options = options

    @property
    def pods(self) -> list[Pod]:
        return [pod for host in self.lab.hosts for pod in host.pods]

    def run(self) -> None:
        self.prepare_hosts()
        self.start()
        self.attach()
        round_trips = self.ping_all()
        self.marker_stays_inside()
        result = self.stream()
        self.measure(result, round_trips)
        self.show_status()
        self.marker_shows_without_secret()

    def prepare_hosts(self) -> None:
        for host in self.lab.hosts:
            if self.options.forward_drop:
                host.drop_forwarded()
            if self.options.nf_call is not None:
                host.filter_bridged(self.options.nf_call)
        extras = ["IPv6 alone"] if self.options.underlay == 6 else []
        extras += ["FORWARD policy DROP"] if self.options.forward_drop else []
        if self.options.nf_call is not None:
            extras.append(f"bridge-nf-call-iptables {int(self.options.nf_call)}")
        self.screen.done(f"{HOSTS} hosts on one underlay" + (f" ({', '.join(extras)})" if extras else ""))

    def start(self) -> None:
        secret = self.lab.hosts[0].agent.command("genkey").stdout.strip()
        self.lab.start_agents(password=secret)
        self.screen.done(f"{HOSTS} agents, one secret, all connected")

    def attach(self) -> None:
        for host in self.lab.hosts:
            for name in PODS:
                host.add_pod(name)
        placed = (f"{host.name} {' '.join(pod.address for pod in host.pods)}" for host in self.lab.hosts)
        self.screen.done("pods: " + ", ".join(placed))

    def ping_all(self) -> list[float]:
        """Every ordered pair; the round trips between hosts, in ms."""
        between, pairs = [], 0
        for sender in self.pods:
            for receiver in self.pods:
                if sender is receiver:
                    continue
                times = sender.ping(receiver.address, count=3)
                if not times:
                    raise HostError(f"{sender} cannot ping {receiver} ({receiver.address})")
                pairs += 1
                if sender.host is not receiver.host:
                    between += times
        self.screen.done(f"all {pairs} pairs of pods ping each other")
        return between

    def watch(self, name: str, *, sealed: bool) -> bool:
        """Sends the marker from the first host's pod to the second's; whether the underlay showed it."""
        one, two = self.lab.hosts[:2]
        with Capture(one.namespace, self.lab.directory / name) as capture:
            send_marker(one.pods[0].namespace, two.pods[0].address, MARKER, count=MARKER_COUNT)
            # As many tunnel bytes as the markers have, at the least, prove that the capture watched them go by.
            watched = f"udp port {PORT} and src host {one.address} and dst host {two.address}"
            capture.wait_for_payload(MARKER_COUNT * (len(MARKER) + OVERHEAD), watched)
            if inner := capture.packets("net 10.32.0.0/12") if sealed else []:
                raise HostError(f"a packet of the range crossed the underlay: {inner[0]}")
            return capture.holds(MARKER)

    def marker_stays_inside(self) -> None:
        if self.watch("sealed", sealed=True):
            raise HostError("the marker crossed the underlay in plaintext although a secret is set")
        self.screen.done("tcpdump on the underlay: the pods' marker is not there")

    def stream(self) -> Result:
        sender, receiver = self.lab.hosts[0].pods[0], self.lab.hosts[1].pods[0]
        label = f"{sender} → {receiver}"
        with (
            Stream(sender.namespace, receiver.namespace, receiver.address, self.options.size) as stream,
            self.screen.progress(label, self.options.size) as progress,
        ):
            result = stream.finish(progress)
        self.screen.done(f"{result.bytes >> 20} MiB over TCP, {label}: SHA-256 {result.sha256[:16]}… on both ends")
        return result

    def measure(self, result: Result, round_trips: list[float]) -> None:
        one, two = self.lab.hosts[:2]
        tunnel = tcp(one.pods[1].namespace, two.pods[1].namespace, two.pods[1].address)
        local = tcp(one.pods[0].namespace, one.pods[1].namespace, one.pods[1].address)
        bare = tcp(one.namespace, two.namespace, two.address)
        rows = [
            (f"the {result.bytes >> 20} MiB above, hashed", f"{result.bytes * 8 / result.seconds / 1e6:,.0f} Mbit/s"),
            ("pod to pod between hosts, one TCP stream", f"{tunnel:,.0f} Mbit/s"),
            ("pod to pod on one host, one TCP stream", f"{local:,.0f} Mbit/s"),
            ("the bare underlay, one TCP stream", f"{bare:,.0f} Mbit/s"),
            ("round trip between hosts, median", f"{statistics.median(round_trips):.2f} ms"),
        ]
        self.screen.table("On this machine, all at once:", ("path", "measured"), rows)

    def show_status(self) -> None:
        agent = self.lab.hosts[0].agent
        for arguments in (("status",), ("status", "connections")):
            self.screen.say(f"\nhost1# tunrouter {' '.join(arguments)}")
            self.screen.say(agent.command(*arguments).stdout.rstrip())
        self.screen.say("")

    def marker_shows_without_secret(self) -> None:
        pair = self.lab.hosts[:2]
        for host in self.lab.hosts:
            host.agent.stop()
        self.lab.start_agents(password=None, hosts=pair)
        one, two = (host.pods[0] for host in pair)
        for host in pair:
            for pod in host.pods:
                host.attach(pod)
        wait_until("a ping without encryption", lambda: one.ping(two.address, seconds=1), 10)
        if not self.watch("plain", sealed=False):
            raise HostError("the marker is not to be seen even without a secret: the check proves nothing")
        self.screen.done("the same without a secret: the marker is there, so the check can fail")


def tcp(client: Namespace, server: Namespace, address: str) -> float:
    with IperfServer(server) as iperf:
        return iperf.tcp(client, address, seconds=2)


def describe_kept(screen: Screen, hosts: tuple[Host, ...]) -> None:
    """How to look around in a lab that was left running."""
    for host in hosts:
        screen.say(
            f"{host.name}: nsenter --net={host.namespace.path}   pods: {[pod.namespace.name for pod in host.pods]}"
        )
    screen.say("`make clean`, or the next lab, removes them")


def run(options: Options, screen: Screen) -> None:
    if os.geteuid():
        raise HostError("namespaces and TUN devices need root", "sudo make demo")
    lab = Lab(hosts=HOSTS, keep=options.keep, underlay=options.underlay)
    try:
        with lab:
            Demo(lab, screen, options).run()
    except Exception:
        for log in lab.logs():
            screen.say(f"log: {log}")
        raise
    if options.keep:
        describe_kept(screen, lab.hosts)


def main(argv: list[str]) -> int:
    options = parse(argv)
    screen = Screen()
    started = time.monotonic()
    try:
        run(options, screen)
    except TunrouterError as error:
        screen.say(f"demo: failed: {error}")
        return 1
    except KeyboardInterrupt:
        screen.say("demo: stopped")
        return 130
    screen.say(f"{time.monotonic() - started:.0f} s in all")
    screen.say("demo: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
