"""The probes of one container, as a kubelet runs them: startup first, then liveness and readiness side by side.

Law: a container that has a startup probe is not started before it answers, and is neither found dead nor ready before;
one without a readiness probe is ready when it is started.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from typing import Any, Final

from tests.kube.machine import Machine

Json = dict[str, Any]
DEFAULTS: Final = {"initialDelaySeconds": 0, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3,
                   "successThreshold": 1}  # fmt: skip
TICK_SECONDS: Final = 0.05


class Probe:
    """One of the three; `failed` and `passed` are what its thresholds say."""

    def __init__(self, machine: Machine, spec: Json, address: str, began: float) -> None:
        self._machine = machine
        self._get = spec["httpGet"]
        self._spec = DEFAULTS | spec
        self._address = self._get.get("host") or address
        self._due = began + self._spec["initialDelaySeconds"]
        self._failures = self._successes = 0
        self.said = ""

    @property
    def failed(self) -> bool:
        return self._failures >= self._spec["failureThreshold"]

    @property
    def passed(self) -> bool:
        return self._successes >= self._spec["successThreshold"]

    def look(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._spec["periodSeconds"]
        if self._ask():
            self._failures, self._successes = 0, self._successes + 1
        else:
            self._failures, self._successes = self._failures + 1, 0

    def _ask(self) -> bool:
        seconds = self._spec["timeoutSeconds"]
        connection = http.client.HTTPConnection(self._address, self._get["port"], timeout=seconds)
        try:
            connection.sock = self._machine.within(
                lambda: socket.create_connection((self._address, self._get["port"]), seconds)
            )
            connection.request("GET", self._get.get("path", "/"), headers={"User-Agent": "kube-probe/1.36"})
            answer = connection.getresponse()
            self.said = answer.read(200).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            self.said = str(error)
            return False
        finally:
            connection.close()
        return 200 <= answer.status < 400


class Probes(threading.Thread):
    """Of one life of one container; ends when it is told to, or when the container has to be restarted."""

    def __init__(self, machine: Machine, container: Json, address: str) -> None:
        super().__init__(daemon=True, name=f"probes of {container['name']} on {machine}")
        now = time.monotonic()
        made = {
            kind: Probe(machine, container[f"{kind}Probe"], address, now)
            for kind in ("startup", "liveness", "readiness")
            if f"{kind}Probe" in container
        }
        self._startup, self._liveness, self._readiness = map(made.get, ("startup", "liveness", "readiness"))
        self._ended = threading.Event()
        self.started = self._startup is None
        self.ready = self.started and self._readiness is None
        self.unhealthy = ""
        """Why the container has to be killed."""
        self.why = ""
        """What readiness last said."""

    def end(self) -> None:
        self.ready = False
        self._ended.set()

    def run(self) -> None:
        while not self._ended.wait(TICK_SECONDS) and not self.unhealthy:
            if not self.started:
                assert self._startup is not None
                self._look("Startup", self._startup)
                self.started = self._startup.passed
                self.ready = self.started and self._readiness is None
                continue
            if self._liveness is not None:
                self._look("Liveness", self._liveness)
            if self._readiness is not None:
                self._readiness.look()
                self.ready = not self._ended.is_set() and (
                    self._readiness.passed or (self.ready and not self._readiness.failed)
                )
                self.why = self._readiness.said

    def _look(self, name: str, probe: Probe) -> None:
        probe.look()
        if probe.failed:
            self.unhealthy = f"{name} probe failed: {probe.said}"
