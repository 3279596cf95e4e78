"""The completion scripts: shipped as made, and bash's tried in bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tunrouter.cli.completion import SHELLS, script
from tunrouter.cli.status import REPORTS

ROOT = Path(__file__).parent.parent.parent
SHIPPED = {"bash": "tunrouter.bash", "zsh": "_tunrouter", "fish": "tunrouter.fish"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shipped_script_is_current(shell: str) -> None:
    """If not: tunrouter completion SHELL > completions/…"""
    assert (ROOT / "completions" / SHIPPED[shell]).read_text() == script(shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_knows_every_command(shell: str) -> None:
    text = script(shell)
    commands = "up npc status connect forget attach detach ps whois rmpeer leave electors reset doctor genkey bench sim"
    assert all(
        command in text
        for command in f"{commands} expose hide ping top report version completion config cni policy".split()
    )
    assert "--host-firewall" in text.replace("-l host-firewall", "--host-firewall")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tunrouter", "st"], {"status"}),
        (["tunrouter", "status", ""], {*REPORTS, "--output", "-o", "--watch", "-w", "--socket", "--help"}),
        (["tunrouter", "status", "-o", "j"], {"json"}),
        (["tunrouter", "exp"], {"expose"}),
        (["tunrouter", "hide", ""], {"--socket", "--help"}),
        (["tunrouter", "config", ""], {"check", "show", "--help"}),
        (["tunrouter", "policy", ""], {"explain", "list", "--help"}),
        (["tunrouter", "up", "--no-h"], {"--no-host-firewall"}),
        (["tunrouter", "up", "--ipalloc-init", "o"], {"observer"}),
        (["tunrouter", "status", "ip"], {"ipam"}),
        (["tunrouter", "rmpeer", "--"], {"--force", "--dry-run", "--output", "--socket", "--help"}),
        (["tunrouter", "electors", "--se"], {"--set"}),
        (["tunrouter", "up", "--no-b"], {"--no-bench"}),
        (["tunrouter", "up", "--log-level", "d"], {"debug"}),
        (["tunrouter", "attach", "--interface", "l"], {"lo"}),
        (["tunrouter", "completion", "f"], {"fish"}),
        (["tunrouter", "bench", "--scenario", "tcp-r"], {"tcp-reverse"}),
        (["tunrouter", "bench", "--offloads", "g"], {"gro"}),
        (["tunrouter", "sim", "par"], {"partition"}),
        (["tunrouter", "sim", "--ch"], {"--changes", "--churn"}),
        (["tunrouter", "top", "--sort", "r"], {"rate", "rtt"}),
        (["tunrouter", "ping", "--c"], {"--count"}),
        (["tunrouter", "--v"], {"--version"}),
    ],
)
def test_bash_completes(words: list[str], offered: set[str]) -> None:
    program = (
        'source completions/tunrouter.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tunrouter; '
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-uc", program, "bash", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered
