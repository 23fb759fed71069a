"""The bench's measured servers: every thread of theirs is on the measured core, whenever it was started."""

from __future__ import annotations

import subprocess
import sys

from bench.fleet import plan

_THREADS = """
import os, threading
seen = []
other = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
other.start(); other.join()
print(sorted(seen[0] | os.sched_getaffinity(0)))
"""


def test_a_measured_program_and_its_threads_have_that_core_alone() -> None:
    argv = plan.on_measured_core([sys.executable, "-c", _THREADS])
    said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == f"[{plan.measured_core()}]"
