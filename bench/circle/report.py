"""What was seen of each start, as JSON and as docs/benchmarks-circle.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = REPOSITORY / "bench" / "results"
PAGE: Final = REPOSITORY / "docs" / "benchmarks-circle.md"
READY_S: Final = 5.0
CALM: Final = 0.5  # load beside ours that makes figures provisional
_INTRODUCTION: Final = """\
# The circle on a cluster

Made by `./dev bench circle --write`; not edited by hand. A Deployment whose pods compute before they are ready (a loop
in a shell, startup and readiness probes by `exec` once a second) on two nodes of one machine. Its first pod starts
cold, is checkpointed and pushed by a watcher, and later pods get the checkpoint from a hook. Times up to *ready* are of
the pod's status, in whole seconds since its creation; *prepare* (question to answer, with the fetch where the node has
nothing yet), *restore* (CRIU) and *let go* (question to SIGCONT) are the agent's. Goal: restored pods are ready in
under {ready_s:g} s.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One pod's. Seconds from its creation, as its status has them; milliseconds of its agent, 0 when cold."""

    what: str
    node: str
    restored: bool
    scheduled_s: float = 0.0
    sandbox_s: float = 0.0
    started_s: float = 0.0
    ready_s: float = 0.0
    prepare_ms: float = 0.0
    restore_ms: float = 0.0
    let_go_ms: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether it was as soon ready as it should be."""
        return not self.restored or self.ready_s < READY_S


def is_kept(starts: Sequence[Start]) -> bool:
    """Whether every later pod was restored, as soon as it should be."""
    later = [start for start in starts if "first" not in start.what]
    return bool(later) and all(start.restored and start.is_kept for start in later)


def as_told(start: Start) -> dict[str, object]:
    """For JSON."""
    return {k: round(v, 1) if isinstance(v, float) else v for k, v in asdict(start).items()}


def line(start: Start) -> str:
    """For people, on a terminal."""
    how = f"restored in {start.let_go_ms:.0f} ms" if start.restored else "cold"
    return f"{start.what:30} {start.node}  ready after {start.ready_s:3.0f} s, {how}"


def write(starts: Sequence[Start], where: Mapping[str, object]) -> Path:
    """Write ``bench/results/circle-<date>.json`` and the page; the former."""
    at = datetime.now(UTC)
    content = {
        "at": at.isoformat(timespec="seconds"),
        "machine": where,
        "starts": [as_told(start) for start in starts],
    }
    path = RESULTS / f"circle-{at:%Y-%m-%d}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(starts, where, f"{at:%Y-%m-%d}"))
    return path


def page(starts: Sequence[Start], where: Mapping[str, object], day: str) -> str:
    """The page."""
    load = where.get("load_average")
    busy = isinstance(load, float) and load > CALM
    note = f"\n**Provisional**: others were using the machine (load {load} at the start).\n"
    head = "| pod | node | how | scheduled | sandbox | started | **ready** | prepare | restore | let go | reached |"
    return "\n".join(
        [
            _INTRODUCTION.format(ready_s=READY_S),
            f"## {day}",
            note if busy else "",
            head,
            "|" + "---|" * head.count(" |"),
            *(_row(start) for start in starts),
            "",
            "## The machine",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name.replace('_', ' ')} | {value} |" for name, value in where.items()),
            "",
        ]
    )


def _row(start: Start) -> str:
    seconds = (start.scheduled_s, start.sandbox_s, start.started_s)
    ms = (start.prepare_ms, start.restore_ms, start.let_go_ms)
    cells = [
        *(start.what, start.node, "restored" if start.restored else "cold"),
        *(f"{value:.0f} s" for value in seconds),
        f"**{start.ready_s:.0f} s**",
        *(f"{value:.0f} ms" if start.restored else "-" for value in ms),
        ("yes" if start.is_kept else "no") if start.restored else "-",
    ]
    return f"| {' | '.join(cells)} |"
