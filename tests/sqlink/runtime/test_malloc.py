"""Freed memory stays with the process."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from sqlink.runtime.malloc import keep_freed_memory

FAULTS = """
import resource, torch
from sqlink.runtime.malloc import keep_freed_memory
kept = keep_freed_memory() if {keep} else False
for _ in range(20):
    torch.empty(10_000_000).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.empty(10_000_000).fill_(1)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> tuple[int, int]:
    """Whether memory is kept, and the new pages that ten tensors of 40 MB take."""
    code = FAULTS.format(keep=keep)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC", "GLIBC", "LD_PRE"))}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain
    )
    kept, count = run.stdout.split()
    return int(kept), int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is not here")
def test_large_tensors_take_no_new_pages() -> None:
    kept, few = faults(keep=True)
    assert kept
    assert few < 1000
    assert faults(keep=False)[1] > 2 * few  # else there was nothing to mend


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
