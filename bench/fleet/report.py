"""The fleet's figures as JSON, and as their part of docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.case import rounded
from bench.fleet.figures import Figure
from bench.report import FLEET, REPOSITORY, RESULTS, TABLE

_INTRODUCTION = """
Made by `./dev bench fleet`; not edited by hand. Simulated agents in a process of their own speak the real protocol
over loopback: gRPC with TLS, the real agent's pace (a frame of news each 0.25 s at most, a status each 10 s) and
back-off. The control plane is the real process with the real store; it has one core to itself, the agents and the
readers share the others. Every update counts, also one that a newer one of its job overtook.
"""


def write(figures: Sequence[Figure], load_average: float) -> str:
    """Write ``bench/results/<date>-fleet.json`` and the section of the document; the first one's path."""
    at = datetime.now(UTC)
    machine = {
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "load_average": round(load_average, 2),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{at:%Y-%m-%d}-fleet.json"
    content = {
        "at": at.isoformat(timespec="seconds"),
        "machine": machine,
        "rows": [figure.json() for figure in figures],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    before = TABLE.read_text().partition(FLEET)[0].rstrip("\n") if TABLE.exists() else ""
    TABLE.write_text(f"{before}\n\n{section(figures, machine, at)}")
    return str(Path(path).relative_to(REPOSITORY))


def section(figures: Sequence[Figure], machine: Mapping[str, object], at: datetime) -> str:
    """The part of the document, from its heading on."""
    load = machine["load_average"]
    busy = isinstance(load, float) and load > 0.5
    lines = [FLEET + _INTRODUCTION, f"Measured {at:%Y-%m-%d} on {machine['cores']} cores.", ""]
    if busy:
        lines += [f"**Provisional**: others were using the machine (load {load} at the start).", ""]
    lines += ["| row | ours | goal | reached | besides |", "|---|---|---|---|---|"]
    lines += [_line(figure) for figure in figures]
    lines += ["", "Rows:", ""]
    abouts = {figure.row: figure.about for figure in figures}
    lines += [f"- **{row}**: {about}" for row, about in abouts.items()]
    return "\n".join(lines) + "\n"


def _line(figure: Figure) -> str:
    besides = ", ".join(f"{k.replace('_', ' ')} {rounded(v):g}" for k, v in figure.notes.items())
    return (
        f"| {figure.row} | {rounded(figure.value):g} {figure.unit} | ≤ {figure.limit:g} {figure.unit} "
        f"| {'yes' if figure.reached else 'no'} | {besides} |"
    )
