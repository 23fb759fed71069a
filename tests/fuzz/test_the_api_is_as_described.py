"""The description that ``/openapi.json`` gives is true, whatever is sent: no 500, no answer that it does not know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = "ip link set lo up && exec "  # in a network of its own: what is sent to made-up hosts goes nowhere
LIMIT_S = 2400


@pytest.mark.fuzz
def test_what_is_sent_at_random_is_answered_as_described(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cases, seed = (request.config.getoption(name) for name in ("--fuzz-cases", "--fuzz-seed"))
    argv = [sys.executable, "-m", "tests.fuzz.drive", str(tmp_path), str(cases), str(seed)]
    if os.geteuid() == 0:
        argv = ["unshare", "--net", "--", "sh", "-c", ALONE + '"$@"', "sh", *argv]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
    done = json.loads(output.decode().splitlines()[-1])
    assert not done["failed"], "\n\n".join(done["failed"])
    assert done["cases"] >= cases
