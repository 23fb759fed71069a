"""Results as JSON and as the table in docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.case import OURS, STOCK, Case, Figures, rounded, size_text
from bench.contest import Outcome
from bench.row import Row

REPOSITORY: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = REPOSITORY / "bench" / "results"
WANTED_RUNS: Final = 5
TABLE: Final = REPOSITORY / "docs" / "benchmarks.md"
FLEET: Final = "# The control plane beside a fleet\n"  # begins what bench.fleet writes, to the end
DATA_WORDS: Final = {"half": "half random", "full": "random"}
_INTRODUCTION: Final = """\
# Measured beside the stock way

Made by `./dev bench`; not edited by hand. Stock and ours are run in turns on the same node, with the same image and
the same kind of data, in the order A B, B A, …; before each timed step dirty pages are on the disk. Figures are
medians with the smallest and largest of all runs. Ratio is stock ÷ ours: larger is better. Stock is containerd's CRI
`CheckpointContainer`; `buildah from scratch`, `add`, `config`, `commit`, `push`; CRI `PullImage` and the restore
through `CreateContainer`. One row alone: `./dev bench pause --size 1GiB --runs 5`.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One row with one case, and what came of it."""

    row: Row
    case: Case
    outcome: Outcome

    def looked_at(self, row: Row) -> Result:
        """The same runs as ``row`` sees them."""
        kept: dict[str, Figures] = {}
        for name, figures in self.outcome.figures.items():
            seen = figures.of_note(row.note) if row.note else figures
            if seen is not None and (name != OURS or row.ours == OURS):
                kept[OURS if name == row.ours else name] = seen
        return Result(row, self.case, Outcome(kept, self.outcome.failures))

    @property
    def ratio(self) -> float | None:
        """Stock ÷ ours, where both are."""
        figures = self.outcome.figures
        if STOCK not in figures or OURS not in figures or not figures[OURS].median:
            return None
        return rounded(figures[STOCK].median / figures[OURS].median)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None when somebody that it asks for has no figure."""
        figures = self.outcome.figures
        try:
            return self.row.reached({n: f.median for n, f in figures.items()}, self.case)
        except (KeyError, ZeroDivisionError):
            return None

    def json(self) -> dict[str, object]:
        """Everything, the ratio last."""
        figures = self.outcome.figures
        failures = self.outcome.failures
        return {
            "row": self.row.name,
            "size": size_text(self.case.size_bytes),
            "data": DATA_WORDS[self.case.data],
            "runs": self.case.runs,
            "unit": self.row.unit,
            **({"failed": dict(failures)} if failures else {}),
            **{name: figure.json() for name, figure in figures.items()},
            "goal": self.row.goal,
            "reached": self.reached,
            "ratio": self.ratio,
        }


def write(results: Sequence[Result], machine: Mapping[str, object]) -> Path:
    """Write ``bench/results/<date>.json`` and the table; the first one's path."""
    at = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{at:%Y-%m-%d}.json"
    content = {
        "at": at.isoformat(timespec="seconds"),
        "machine": machine,
        "rows": [r.json() for r in results],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    TABLE.write_text(table(results, machine, at) + fleet_section())
    return path


def fleet_section() -> str:
    """What ``bench.fleet`` wrote into the document: it is measured by itself, and stays."""
    text = TABLE.read_text() if TABLE.exists() else ""
    begin = text.find(FLEET)
    return "\n" + text[begin:] if begin >= 0 else ""


def table(results: Sequence[Result], machine: Mapping[str, object], at: datetime) -> str:
    """The whole of docs/benchmarks.md."""
    lines = [_INTRODUCTION, f"## {at:%Y-%m-%d}", "", *_provisional(results, machine)]
    lines += ["| row | process | stock | ours | beside them | ratio | goal | reached |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [_line(result) for result in results]
    lines += ["", "Rows:", ""]
    seen = {result.row.name: result.row for result in results}
    lines += [f"- **{row.name}** ({row.unit}): {row.about}" for row in seen.values()]
    lines += [
        *_limits(results),
        *_failures(results),
        "",
        "## The machine",
        "",
        "| | |",
        "|---|---|",
    ]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in machine.items()]
    return "\n".join(lines) + "\n"


def _provisional(results: Sequence[Result], machine: Mapping[str, object]) -> list[str]:
    """Why these figures are not to be trusted yet; nothing if they are."""
    fewest = min((result.case.runs for result in results), default=0)
    load, cores = machine.get("load_average", 0), machine.get("cores", 1)
    busy = isinstance(load, float) and isinstance(cores, int) and load > cores / 4
    why = [f"{fewest} run(s) of each instead of {WANTED_RUNS}"] if fewest < WANTED_RUNS else []
    why += [f"a machine that others were using (load {load} at the start)"] if busy else []
    return [f"**Provisional**: {', '.join(why)}.", ""] if why else []


def _line(result: Result) -> str:
    figures = result.outcome.figures

    def cell(name: str, unit: str = result.row.unit) -> str:
        if name not in figures:
            return "failed" if name in result.outcome.failures else "-"
        found = figures[name].json()
        return f"{found['median']:g}{unit and ' '}{unit} ({found['min']:g}-{found['max']:g})"

    others = [f"{name} {cell(name)}" for name in figures if name not in (STOCK, OURS)]
    others += _told(result)
    process = f"{size_text(result.case.size_bytes)}, {DATA_WORDS[result.case.data]}"
    reached = {True: "yes", False: "no", None: "?"}[result.reached]
    ratio = f"{result.ratio:g}x" if result.ratio else "-"
    return (
        f"| {result.row.name} | {process} | {cell(STOCK)} | {cell(OURS)} | {', '.join(others) or '-'} "
        f"| {ratio} | {result.row.goal} | {reached} |"
    )


def _told(result: Result) -> list[str]:
    """Medians of the notes that the row shows: where ours spends its time."""
    figures = result.outcome.figures
    notes = figures[OURS].notes if OURS in figures else {}
    return [f"of ours: {name} {notes[name]:g}" for name in result.row.told if name in notes]


def _limits(results: Sequence[Result]) -> list[str]:
    """What keeps rows from their goals that were missed."""
    missed = {one.row.name: one.row.limit for one in results if not one.reached and one.row.limit}
    found = [f"- **{name}**: {limit}" for name, limit in missed.items()]
    return (
        ["", "Where a goal is missed, what limits the figure and what was tried:", "", *found]
        if found
        else []
    )


def _failures(results: Sequence[Result]) -> list[str]:
    found = []
    for result in results:
        where = f"{result.row.name}, {size_text(result.case.size_bytes)}"
        for name, why in result.outcome.failures.items():
            found.append(f"- {where}, {name}: {why}")
    return ["", "Without a figure:", "", *found] if found else []
