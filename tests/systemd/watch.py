"""Traffic inside a booted machine that goes on while something is done to its agent: every lost packet, every pause.

Law: what is watched began before and ends after: pings are counted by their own program, and a stream is one TCP
connection that fails for good where it breaks.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

from tests.systemd.machine import Machine
from tunrouter.bench.namespaces import wait_until

DIRECTORY: Final = "/run/watch"
PORT: Final = 7000
SERVER: Final = """
import socket, threading
def echo(peer):
    while data := peer.recv(64):
        peer.sendall(data)
listener = socket.create_server(("", {port}))
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"""
CLIENT: Final = """
import socket, time, pathlib
said, worst, last = pathlib.Path({out!r}), 0.0, time.monotonic()
with socket.create_connection(({address!r}, {port}), timeout=60) as peer:
    while not pathlib.Path({stop!r}).exists():
        peer.sendall(b"x")
        if not peer.recv(1):
            raise SystemExit("closed")
        now = time.monotonic()
        worst, last = max(worst, now - last), now
        time.sleep(0.01)
said.write_text(str(worst))
"""


class Watch:
    """A context manager. A name is that of a named namespace; without one it is the machine itself."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._pids: list[str] = []
        self._pings: dict[str, str] = {}
        """What each is about, by the number of its files."""
        self._streams: list[int] = []
        self._servers: set[str] = set()

    def __enter__(self) -> Watch:
        self._machine.sh(f"rm -rf {DIRECTORY}; mkdir {DIRECTORY}")
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.sh(f"kill {' '.join(self._pids)} 2>/dev/null || true; rm -rf {DIRECTORY}")

    def ping(self, name: str, address: str) -> None:
        """A hundred times a second."""
        number = str(len(self._pids))
        self._start(name, f"ping -qn -i 0.01 {address}", number)
        self._pings[number] = f"{name or 'machine'} to {address}"

    def stream(self, name: str, to: str, address: str) -> None:
        if to not in self._servers:
            self._servers.add(to)
            self._python(to, SERVER.format(port=PORT), "server")
            inside = f"ip netns exec {to} ss -Hltn 'sport = :{PORT}'"
            wait_until("the server listens", lambda: self._machine.sh(inside), 10)
        number = len(self._pids)
        text = CLIENT.format(out=f"{DIRECTORY}/{number}.pause", stop=f"{DIRECTORY}/stop", address=address, port=PORT)
        self._streams.append(number)
        self._python(name, text, str(number))

    def go_on(self, seconds: float) -> None:
        """Lets so much traffic pass: that it does is what is watched."""
        time.sleep(seconds)

    def lost(self) -> dict[str, str]:
        """Ends the pings; what each that lost some has to say."""
        found = {}
        for number, about in self._pings.items():
            pid = self._pids[int(number)]
            self._machine.sh(f"kill -INT {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.01; done")
            said = self._machine.sh(f"cat {DIRECTORY}/{number}.out")
            counted = re.search(r"(\d+) packets transmitted, (\d+) received", said)
            # The last one may be under way.
            if counted is None or int(counted[1]) < 100 or int(counted[1]) - int(counted[2]) > 1:
                found[about] = said
        return found

    def pauses(self) -> list[float]:
        """Ends the streams; how long each stood still at most."""
        self._machine.sh(f"touch {DIRECTORY}/stop")
        return [float(self._result(number)) for number in self._streams]

    def _result(self, number: int) -> str:
        read = f"cat {DIRECTORY}/{number}.pause 2>/dev/null || true"
        said = f"; what it said is in {DIRECTORY}/{number}.out"
        return wait_until(f"the stream has ended well{said}", lambda: self._machine.sh(read), 70)

    def _python(self, name: str, text: str, number: str) -> None:
        script = f"{DIRECTORY}/{Path(number).name}.py"
        self._machine.write(script, text)
        self._start(name, f"python3 {script}", number)

    def _start(self, name: str, command: str, number: str) -> None:
        inside = f"ip netns exec {name} " if name else ""
        out = f"{DIRECTORY}/{number}.out"
        self._pids.append(self._machine.sh(f"{inside}{command} >{out} 2>&1 </dev/null & echo $!"))
