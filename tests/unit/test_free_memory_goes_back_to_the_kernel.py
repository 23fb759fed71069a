"""What the C library holds of freed memory between pieces that are in use is given back."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from agent import heap

def resident_kib():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

heap.share_arenas()
pieces = [b"x" * (64 << 10) for _ in range(1600)]  # 100 MiB, each too small for a mapping of its own
kept = pieces[::50]
del pieces
before = resident_kib()
heap.give_back()
print(before, resident_kib())
"""


def test_memory_between_what_is_in_use_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True
    )
    before, after = map(int, done.stdout.split())
    assert before > 100 << 10
    assert after < 50 << 10
