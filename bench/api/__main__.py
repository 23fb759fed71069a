"""``python -m bench.api``: fill a store, measure, print a table and one line of JSON; 1 if a promise is not kept."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

import aiohttp

from bench import machine
from bench.api import filling, load, report, servers
from bench.api.load import Measured
from bench.api.report import Row
from bench.api.servers import Served
from controlplane.store.database import FILE

PATHS: Final = {"list": "/checkpoint/list?limit=100", "statistics": "/cluster/statistics"}
ROUNDS: Final = 3
CHANGES_PER_S: Final = 2  # a checkpoint changes so often meanwhile: no answer is good for long


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=1000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=300.0, help="at that rate, each question")
    parser.add_argument("--contest", type=float, default=5.0, help="seconds flat out, each turn")
    parser.add_argument(
        "--write", action="store_true", help="bench/results/api-<date>.json, docs/benchmarks-api.md"
    )
    parser.add_argument("--venv", type=Path, default=Path("~/.cache/snap-dev/bench-fastapi"))
    options = parser.parse_args(argv)
    where = {**machine.outline(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="snap-bench-") as folder:
        data_dir = Path(folder) / "data"
        print(f"filling a store with {options.checkpoints} checkpoints", flush=True)
        filling.fill(data_dir, options.checkpoints)
        with (
            servers.ours(data_dir) as ours,
            servers.rival(options.venv.expanduser(), data_dir / FILE) as rival,
        ):
            rows = [asyncio.run(_row(name, ours, rival, options)) for name in PATHS]
    for row in rows:
        print(
            f"{row.question:10} p50 {row.p50_ms:5.1f} ms  p99 {row.p99_ms:5.1f} ms  "
            f"per core and second {row.per_core_s:6.0f}, FastAPI {row.rival_per_core_s:6.0f}: "
            f"{row.times:4.1f}x  memory {row.grown_bytes / 1e6:+5.1f} MB  "
            f"{'kept' if row.is_kept else 'NOT KEPT'}"
        )
    print(json.dumps([asdict(row) | {"times": row.times, "kept": row.is_kept} for row in rows]))
    if options.write:
        run = {"checkpoints": options.checkpoints, "rate": options.rate, "seconds": options.seconds}
        report.write(rows, run, where)
    return 0 if all(row.is_kept for row in rows) else 1


async def _row(name: str, ours: Served, rival: Served, options: argparse.Namespace) -> Row:
    path = PATHS[name]
    asked = [load.request(path, ours.port, ours.token)]
    asked_rival = [load.request(path, rival.port)]
    changing = asyncio.create_task(_change(ours), name="change checkpoints")
    try:
        await load.at_rate(ours.port, asked, options.rate, 5.0)  # warm
        before = ours.memory_bytes()
        paced = await load.at_rate(ours.port, asked, options.rate, options.seconds)
        grown = ours.memory_bytes() - before
        mine, theirs = [], []
        for _ in range(ROUNDS):  # in turns: what else the machine does meets both
            mine.append(
                await _per_core(ours, lambda: load.flat_out(ours.port, asked, options.contest))
            )
            theirs.append(
                await _per_core(
                    rival, lambda: load.flat_out(rival.port, asked_rival, options.contest)
                )
            )
    finally:
        changing.cancel()
        with suppress(asyncio.CancelledError):
            await changing
    return Row(
        name,
        round(paced.quantile_ms(0.5), 2),
        round(paced.quantile_ms(0.99), 2),
        paced.failed,
        round(sorted(mine)[ROUNDS // 2]),
        round(sorted(theirs)[ROUNDS // 2]),
        grown,
    )


async def _per_core(server: Served, ask: Callable[[], Awaitable[Measured]]) -> float:
    """Answers per second of processor time."""
    before = server.cpu_s()
    measured = await ask()
    assert not measured.failed, "an answer was not 200"
    return len(measured.latencies_ms) / (server.cpu_s() - before)


async def _change(ours: Served) -> None:
    """Pin and unpin the newest checkpoint, again and again, as a user."""
    headers = {"Authorization": f"Bearer {ours.token}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{ours.port}", headers=headers) as session:
        async with session.get("/checkpoint/list?limit=1") as answer:
            newest = (await answer.json())["checkpoints"][0]["id"]
        pinned = False
        while True:
            pinned = not pinned
            async with session.post(f"/checkpoint/{newest}/pin", json={"pinned": pinned}) as answer:
                answer.raise_for_status()
            await asyncio.sleep(1 / CHANGES_PER_S)


if __name__ == "__main__":
    sys.exit(main())
