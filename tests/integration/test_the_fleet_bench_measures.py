"""The bench of the control plane beside a fleet, with a few agents: every figure is there, none is made up."""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import chain
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RETURNS = ["fleet-return", "fleet-return-killed"]
RESTS = ["fleet-rest", "fleet-rest-killed"]
ROWS = ["fleet-at-rest", "fleet-memory", "fleet-news", *chain(*zip(RETURNS, RESTS, strict=True))]


async def test_a_small_fleet_joins_reports_and_comes_back() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fleet", "--smoke"),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(400):
        said, log = await process.communicate()
    assert process.returncode in (0, 2), log.decode()  # 2: this machine is too slow for a goal
    figures = {one["row"]: one for one in json.loads(said.splitlines()[-1])}
    assert list(figures) == ROWS
    assert figures["fleet-news"]["notes"]["events"] > 0
    assert figures["fleet-news"]["notes"]["own_events"] > 0
    for row in RETURNS:
        assert figures[row]["notes"]["joined"] == 40
        assert 0 < figures[row]["notes"]["half_s"] <= figures[row]["ours"] * 1.001  # rounded
    for row in RESTS:
        assert figures[row]["notes"]["asked"] > 0
        assert figures[row]["notes"]["failed"] == 0
