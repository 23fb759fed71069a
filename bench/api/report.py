"""What was measured: the rows and their goals, as JSON and as docs/benchmarks-api.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = REPOSITORY / "bench" / "results"
PAGE: Final = REPOSITORY / "docs" / "benchmarks-api.md"
P99_MS: Final = 25.0
TIMES: Final = 2.0
FLAT_BYTES: Final = 16 << 20  # what memory may move in the run once it is warm
_INTRODUCTION: Final = """\
# The REST API, measured beside FastAPI

Made by `python -m bench.api --write`; not edited by hand. One process each, on loopback, on the same store. Ours checks
the token, counts the request and answers in full; beside it a minimal FastAPI app under uvicorn with its fast extras
(`bench/api/rival.py`): the same queries and encoding, no login, no limits. First ours is asked at the given rate, then
both in turns as fast as answers come; per core is requests per second of processor time, the median of three turns. A
checkpoint changes twice a second meanwhile, so no answer is good for long.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One question, asked both."""

    question: str
    p50_ms: float
    p99_ms: float
    failed: int
    per_core_s: float
    rival_per_core_s: float
    grown_bytes: int

    @property
    def times(self) -> float:
        """How many of the other's requests ours answers with the same processor time."""
        return self.per_core_s / self.rival_per_core_s

    @property
    def is_kept(self) -> bool:
        """Whether every promise holds."""
        flat = self.grown_bytes <= FLAT_BYTES
        return self.p99_ms <= P99_MS and self.times >= TIMES and not self.failed and flat


def write(rows: Sequence[Row], run: Mapping[str, object], where: Mapping[str, object]) -> None:
    """Write ``bench/results/api-<date>.json`` and the page."""
    at = datetime.now(UTC)
    told = [asdict(row) | {"times": round(row.times, 2), "kept": row.is_kept} for row in rows]
    content = {"at": at.isoformat(timespec="seconds"), "run": run, "machine": where, "rows": told}
    path = RESULTS / f"api-{at:%Y-%m-%d}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(rows, run, where, f"{at:%Y-%m-%d}"))


def page(
    rows: Sequence[Row], run: Mapping[str, object], where: Mapping[str, object], day: str
) -> str:
    """The whole of docs/benchmarks-api.md."""
    load, cores = where.get("load_average", 0), where.get("cores", 1)
    busy = isinstance(load, float) and isinstance(cores, int) and load > cores / 4
    goals = f"p99 ≤ {P99_MS:g} ms, ≥ {TIMES:g}x, memory flat (± {FLAT_BYTES >> 20} MiB)"
    lines = [_INTRODUCTION, f"## {day}", ""]
    if busy:
        lines += [f"**Provisional**: others were using the machine (load {load} at the start).", ""]
    lines += [
        (
            f"{run['checkpoints']} checkpoints, {run['rate']} requests a second for {run['seconds']:g} s each. "
            f"Goals: {goals}."
        ),
        "",
        "| question | p50 | p99 | ours per core | FastAPI per core | times | memory | reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.question} | {row.p50_ms:.1f} ms | {row.p99_ms:.1f} ms | {row.per_core_s:.0f}/s "
        f"| {row.rival_per_core_s:.0f}/s | {row.times:.1f}x | {row.grown_bytes / 1e6:+.1f} MB "
        f"| {'yes' if row.is_kept else 'no'} |"
        for row in rows
    ]
    lines += ["", "## The machine", "", "| | |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in where.items()]
    return "\n".join(lines) + "\n"
