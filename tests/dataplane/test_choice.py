"""Which kernel is taken, and that nobody goes slowly without hearing of it."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from tests.dataplane.fakes import FakeTun, FakeUdp
from tunrouter.core import seam
from tunrouter.dataplane import choice
from tunrouter.dataplane.kernel import Kernel


def opened() -> Kernel:
    def emit(_message: seam.ToControl) -> None:
        pass

    return choice.open_kernel(FakeTun(), [FakeUdp()], emit)


def test_the_compiled_kernel_is_taken() -> None:
    assert opened().name == "compiled"


def test_without_it_the_reference_takes_over_with_one_loud_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tunrouter.dataplane._kernel", None)
    monkeypatch.delitem(sys.modules, "tunrouter.dataplane.compiled", raising=False)
    assert opened().name == "reference"
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "SLOW" in record.message
    assert "apt-get install gcc python3-dev" in record.message


def test_the_reference_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(choice.VARIABLE, "reference")
    assert opened().name == "reference"
    assert not caplog.records


@pytest.mark.parametrize("kernel", ["compiled", "reference"])
def test_no_kernel_boxes_with_a_libsodium_that_was_not_started(kernel: str) -> None:
    """`sodium_init` answers 1 when somebody had called it: here nobody has but the kernel's own imports."""
    code = f"import tunrouter.dataplane.{kernel}, nacl._sodium; print(nacl._sodium.lib.sodium_init())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"
