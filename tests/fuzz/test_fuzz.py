"""The compiled kernel withstands whatever comes in: no byte is touched that is not its own, and what leaves is whole.

`make test` takes the same inputs each time, `make soak` new ones. A failure ends in `failed: seed S, input N`; then
`fuzz_kernel S 1 N` (harness.py builds it) meets it again, under gdb as well.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz import harness
from tunrouter.core import bounds
from tunrouter.dataplane import reference

INPUTS: Final = 1_200_000
ROUND: Final = 10_000
"""Inputs that share a kernel, as in fuzz_kernel.c."""
LONG: Final = 100_000_000
PART: Final = 2_000_000

DRIVERS: Final = {
    "answer_source_rate",
    "drop_held_full",
    "drop_queue_full",
    "handshake_queue_full",
}
"""Counted around the compiled kernel (compiled.py), not in it."""

FAULTS: Final = (
    ("packet.c", "transport > length || length > size", "transport > length || length > size + 1"),
    ("segment.c", "if (header->length <= inner)", "if (header->length < inner)"),
    ("coalesce.c", "if (in->run_count == MAX_FLOWS)", "if (in->run_count == MAX_FLOWS + 1)"),
    (
        "coalesce.c",
        "least((MAX_FRAME - run->header) / run->mss, MAX_COALESCED)",
        "(MAX_FRAME - run->header) / run->mss",
    ),
    ("box.c", "(size + SLACK) & ~(uint32_t)SLACK", "(size + SLACK + 1) & ~(uint32_t)SLACK"),
    ("box.c", "size >= TR_WIDE_TAG_FROM", "size >= TR_WIDE_TAG_FROM - 1"),
    ("inbound.c", "return size >= BODY && get32(datagram)", "return size >= BODY - 1 && get32(datagram)"),
    ("tables.c", "if (whole < address)", "if (whole <= address)"),
    ("control.c", "message->lanes <= MAX_WORKERS", "message->lanes <= MAX_WORKERS + 1"),
)
"""A bound that is one off or missing, a file each: file, right, wrong."""


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> harness.Fuzzer:
    return harness.make(tmp_path_factory.mktemp("fuzzer"))


def test_no_input_breaks_the_kernel_and_the_inputs_go_deep(fuzzer: harness.Fuzzer) -> None:
    seen = fuzzer.run(1, INPUTS)
    assert set(reference.COUNTERS) <= set(seen)
    assert not {name for name in DRIVERS if seen[name]}
    rare = {name: count for name, count in seen.items() if count < 20 and name not in DRIVERS}
    assert not rare, "the fuzzer hardly gets there any more"
    assert seen["longest_run"] == bounds.MAX_COALESCED
    assert seen["longest_train"] == bounds.MAX_TRAIN_SEGMENTS


def test_each_input_is_met_again_by_its_seed_and_number(fuzzer: harness.Fuzzer) -> None:
    one, two = fuzzer.run(7, ROUND), fuzzer.run(7, 1, first=2 * ROUND - 1)
    both = fuzzer.run(7, 2 * ROUND)
    assert one["inputs"] == two["inputs"] == ROUND
    assert one["digest"] != two["digest"]
    assert (one["digest"] + two["digest"]) % (1 << 64) == both["digest"]


@pytest.mark.soak
@pytest.mark.parametrize(("file", "right", "wrong"), FAULTS, ids=[f"{fault[0]}-{fault[2]}" for fault in FAULTS])
def test_a_planted_fault_is_found(fuzzer: harness.Fuzzer, tmp_path: Path, file: str, right: str, wrong: str) -> None:
    broken = fuzzer.planted(tmp_path, file, right, wrong)
    with pytest.raises(harness.BrokenError) as first:
        broken.run(1, 2 * INPUTS)
    assert first.value.input is not None
    with pytest.raises(harness.BrokenError) as again:
        broken.run(1, 1, first=first.value.input)
    assert again.value.input == first.value.input


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_input_of_a_long_run_breaks_the_kernel(fuzzer: harness.Fuzzer) -> None:
    seed = secrets.randbits(32)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda first: fuzzer.run(seed, PART, first), range(0, LONG, PART)):
            pass
