"""The README's quick start, as it stands there: each `one#` and `two#` line is run on a lab's host."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tunrouter.bench.lab import Lab
from tunrouter.bench.namespaces import stop, wait_until

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^    (one|two)# (.+)$", re.MULTILINE)


def test_the_quick_start_works_as_written(tmp_path: Path) -> None:
    lines = LINE.findall((ROOT / "README.md").read_text())
    assert len(lines) >= 10
    program = tmp_path / "bin" / "tunrouter"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tunrouter.cli "$@"\n')
    program.chmod(0o755)
    with Lab(hosts=2) as lab:
        hosts = dict(zip(("one", "two"), lab.hosts, strict=True))
        pods = {"web": hosts["one"].make_namespace("a"), "client": hosts["two"].make_namespace("a")}
        running = []
        try:
            for name, written in lines:
                host = hosts[name]
                line = written.replace("/root/", f"{tmp_path}/")
                for word, pod in pods.items():
                    line = re.sub(rf"\b{word}\b", pod.namespace.name, line)
                environment = host.agent.environment | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
                if line.startswith(("scp ", "ip netns add ")):
                    continue  # the key is already where it belongs, and so are the lab's pods
                if line.endswith("&"):
                    with (tmp_path / f"{name}.log").open("wb") as log:
                        command = ("sh", "-c", "exec " + line.removesuffix("&"))
                        running.append(host.namespace.spawn(*command, stdout=log, env=environment))
                    socket = host.agent.directory / "run" / "tunrouter.sock"
                    wait_until(f"the agent of host {name} answers", socket.exists, 15)
                    continue
                done = host.namespace.run("sh", "-c", line, env=environment, check=False)
                assert done.returncode == 0, f"{name}# {written}\n{done.stdout}{done.stderr}"
                if line.endswith("status connections"):
                    assert "established encrypted" in done.stdout
        finally:
            for process in running:
                stop(process)
