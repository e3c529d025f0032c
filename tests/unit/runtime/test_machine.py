"""Freed memory that stays in the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
from project_copy import ROOT

FAULTS = """
import resource, sys
import numpy as np
from snaketune.runtime import machine
if sys.argv[1] == "kept" and not machine.keep_freed_memory():
    sys.exit(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 24, np.float32)
before = faults()
for _ in range(20):
    np.ones(1 << 24, np.float32)
print(faults() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def faults_and_peak(mode: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True, cwd=ROOT / "scripts"
    )
    faults, peak = done.stdout.split()
    return int(faults), int(peak)


@pytest.mark.skipif(not GLIBC, reason="only glibc gives memory back at once")
def test_arrays_made_one_after_another_take_no_new_pages_and_no_higher_peak() -> None:
    (plain, plain_peak), (kept, kept_peak) = faults_and_peak("plain"), faults_and_peak("kept")
    assert kept < plain / 10
    assert kept_peak < plain_peak * 1.1
