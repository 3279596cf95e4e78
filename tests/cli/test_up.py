"""`up` in processes of its own: root, the hand-over, and that a password stays out of sight however it was given."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunrouter.cli.argv import password_spans
from tunrouter.cli.up import shown_arguments

ROOT = Path(__file__).parent.parent.parent
SOURCES = ["flag", "flag=", "last flag", "file", "variable", "weave", "variable file", "credential", "toml"]


@contextmanager
def running(arguments: Sequence[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.cli.up_with_stub", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TUNROUTER_", "WEAVE_"))}
    process = subprocess.Popen(
        command, env=clean | environ, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def given(source: str, secret: str, directory: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables of `up` with the secret from `source`."""
    file = directory / "password"
    file.write_text(secret + "\n")
    file.chmod(0o600)
    toml = directory / "config.toml"
    toml.write_text(f"password = '{secret}'\n" if source == "toml" else "")
    toml.chmod(0o600)
    base = ["--block", "10.32.1.0/24", "--run-dir", str(directory), "--config", str(toml)]
    flags = {
        "flag": ["up", "--password", secret, "192.0.2.7", *base],
        "flag=": ["up", f"--password={secret}", *base],
        "last flag": ["up", *base, "--silent", "--password", secret],
        "file": ["up", "--password-file", str(file), *base],
    }
    environ = {
        "variable": {"TUNROUTER_PASSWORD": secret},
        "weave": {"WEAVE_PASSWORD": secret},
        "variable file": {"TUNROUTER_PASSWORD_FILE": str(file)},
        "credential": {"CREDENTIALS_DIRECTORY": str(directory)},
    }
    return flags.get(source, ["up", *base]), environ.get(source, {})


def commands_showing(secret: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if secret.encode() in command:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def shown_after(seconds: float, source: str, directory: Path) -> list[str]:
    """The commands that show the password so long after the start; none may once the agent is up."""
    secret = secrets.token_hex(12)
    arguments, environ = given(source, secret, directory)
    start = time.monotonic()
    with running(arguments, environ) as process:
        while time.monotonic() < start + seconds:
            time.sleep(0.001)
        shown = commands_showing(secret)
        assert process.stdout is not None
        assert process.stdout.readline() == "secrets=1 modules=False\n"
        assert not commands_showing(secret)
        assert secret.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"tests.cli.stub_agent" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "up became the agent"
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=10)[1]
    assert secret not in errors
    assert ("better: --password-file" in errors) == ("flag" in source)
    assert process.returncode == 0, errors
    return shown


@pytest.mark.root
@pytest.mark.parametrize("source", SOURCES)
def test_a_password_is_out_of_sight_within_200_ms(source: str, tmp_path: Path) -> None:
    """The best of three starts counts: a busy machine may start Python late."""
    assert any(not shown_after(0.2, source, tmp_path) for _ in range(3))


@pytest.mark.root
def test_the_scan_would_see_a_password() -> None:
    secret = secrets.token_hex(12)
    with subprocess.Popen([sys.executable, "-c", "input()", "--password", secret], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        while not commands_showing(secret) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(commands_showing(secret)) == 1
        process.kill()


@pytest.mark.root
def test_a_password_is_hidden_before_any_work() -> None:
    """Here the work never ends, so what is seen is what the command itself did to its arguments."""
    secret = secrets.token_hex(12)
    program = "import sys, tunrouter.cli, tunrouter.cli.run as r\n"
    program += "r.run = lambda *_, **__: print(sys.argv[2:], flush=True) or input(); tunrouter.cli.main()"
    command = [sys.executable, "-c", program, "up", "--name", "n", "--password", secret, f"--password={secret}", "end"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert secret in process.stdout.readline(), "the command itself still knows it"
        assert not commands_showing(secret)
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert shown[3:] == [b"up", b"--name", b"n", b"--password", b"*" * 24, b"--password=" + b"*" * 24, b"end", b""]
        process.kill()


@pytest.mark.root
def test_a_mistake_after_the_password_hides_it_too(tmp_path: Path) -> None:
    secret = secrets.token_hex(12)
    with running(["up", "--password", secret, "--zzz"], {}) as process:
        errors = process.communicate(timeout=10)[1]
    assert process.returncode == 2
    assert secret not in errors
    assert "no such option: --zzz; see: tunrouter up --help" in errors


def test_spans_of_passwords() -> None:
    arguments = b"\0".join([b"python", b"--password", b"abc", b"x", b"--password=", b"--password=de", b"--password"])
    spans = password_spans(arguments + b"\0")
    assert [arguments[start : start + length] for start, length in spans] == [b"abc", b"", b"de", b""]
    assert password_spans(b"a\0--password-file\0/p\0--passwords=x\0") == []
    assert [length for _, length in password_spans(b"--password\0--password\0x\0")] == [10]


def test_shown_arguments_are_for_a_shell_and_hide_the_password() -> None:
    arguments = ["up", "a b", "--password", "s3cret", "--password=s3cret", "--name", "n"]
    assert shown_arguments(arguments) == "up 'a b' --password … --password=… --name n"


def test_up_needs_root_before_anything_else() -> None:
    program = (
        "import os, sys; sys.argv = ['tunrouter', 'up', '--config', '/absent', '--password', 's3cret', 'peer']\n"
        "from tunrouter.cli.run import run\n"
        "os.geteuid = lambda: 65534; sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    expected = "up needs root; run as root: sudo tunrouter up --config /absent --password … peer"
    assert (done.stderr.splitlines()[-1:], done.returncode) == ([f"tunrouter: {expected}"], 1)


@pytest.mark.root
def test_the_agent_is_not_imported_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('hijacked')")
    environ = dict(os.environ, PYTHONPATH=str(ROOT))
    program = "import sys; sys.path.remove(''); from tests.cli import up_with_stub\n"
    program += "from tunrouter.cli import main, up; up.AGENT = 'tests.cli.stub_agent'; main()"
    command = [sys.executable, "-c", program, "up", "--block", "10.32.1.0/24", "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "secrets=0 modules=False\n"
        process.kill()


@pytest.mark.root
def test_ctrl_c_while_the_command_starts_is_no_traceback(tmp_path: Path) -> None:
    program = "import os, signal; from tunrouter.cli import up, main\n"
    program += "up._require_root = lambda: os.kill(os.getpid(), signal.SIGINT); main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "up"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.returncode, done.stderr) == (130, "")
