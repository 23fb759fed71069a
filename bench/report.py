"""Results as JSON and as the table in docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

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
through `CreateContainer`. One row alone: `./dev bench pause --size 1GiB --runs 5`; with `--write` its line here is
replaced and the others stand, each under the day it was measured.
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


Line = dict[str, Any]  # of a results file: ``Result.json`` and when it was measured


def write(results: Sequence[Result], machine: Mapping[str, object], rows: Sequence[Row]) -> Path:
    """Write ``bench/results/<date>.json`` and the table; the first one's path.

    What was measured before and is not among ``results`` stays in both, under its own day.

    Args:
        rows: all that there are; lines of others are dropped.
    """
    at = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{at:%Y-%m-%d}.json"
    fresh = [result.json() | {"at": at.isoformat(timespec="seconds")} for result in results]
    lines = merged(_last(), fresh, {row.name for row in rows})
    content = {"at": at.isoformat(timespec="seconds"), "machine": machine, "rows": lines}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    TABLE.write_text(
        table(lines, rows, _provisional(results, machine), machine, at) + fleet_section()
    )
    return path


def _last() -> list[Line]:
    """The lines of the newest results file."""
    files = sorted(RESULTS.glob("????-??-??.json"))
    if not files:
        return []
    content = json.loads(files[-1].read_text())
    lines: list[Line] = [{"at": content["at"], **line} for line in content["rows"]]
    return lines


def merged(before: Sequence[Line], fresh: Sequence[Line], known: Collection[str]) -> list[Line]:
    """``before`` with those that were measured anew in their places, then the new ones."""

    def key(line: Line) -> tuple[str, str, str]:
        return line["row"], line["size"], line["data"]

    held = {key(line): line for line in before if line["row"] in known}
    held.update({key(line): line for line in fresh})
    return list(held.values())


def fleet_section() -> str:
    """What ``bench.fleet`` wrote into the document: it is measured by itself, and stays."""
    text = TABLE.read_text() if TABLE.exists() else ""
    begin = text.find(FLEET)
    return "\n" + text[begin:] if begin >= 0 else ""


def table(
    measured: Sequence[Line],
    rows: Sequence[Row],
    notices: Sequence[str],
    machine: Mapping[str, object],
    at: datetime,
) -> str:
    """The whole of docs/benchmarks.md."""
    by_name = {row.name: row for row in rows}
    lines = [_INTRODUCTION, f"## {at:%Y-%m-%d}", "", *notices]
    lines += ["| row | process | measured | stock | ours | beside them | ratio | goal | reached |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    lines += [_line(one, by_name[one["row"]]) for one in measured]
    lines += ["", "Rows:", ""]
    seen = {one["row"]: by_name[one["row"]] for one in measured}
    lines += [f"- **{row.name}** ({row.unit}): {row.about}" for row in seen.values()]
    lines += [
        *_limits(measured, by_name),
        *_failures(measured),
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


def _line(one: Line, row: Row) -> str:
    figures = {name: value for name, value in one.items() if _is_figure(value)}

    def cell(name: str) -> str:
        if name not in figures:
            return "failed" if name in one.get("failed", {}) else "-"
        found = figures[name]
        unit = "" if name.endswith("MiB") else row.unit  # a name that says its own
        return f"{found['median']:g}{unit and ' '}{unit} ({found['min']:g}-{found['max']:g})"

    others = [f"{name} {cell(name)}" for name in figures if name not in (STOCK, OURS)]
    notes = figures.get(OURS, {}).get("notes", {})  # medians: where ours spends its time
    others += [f"of ours: {name} {notes[name]:g}" for name in row.told if name in notes]
    reached = {True: "yes", False: "no", None: "?"}[one["reached"]]
    ratio = f"{one['ratio']:g}x" if one["ratio"] else "-"
    return (
        f"| {row.name} | {one['size']}, {one['data']} | {one['at'][:10]} | {cell(STOCK)} | {cell(OURS)} "
        f"| {', '.join(others) or '-'} | {ratio} | {one['goal']} | {reached} |"
    )


def _is_figure(value: object) -> bool:
    return isinstance(value, dict) and "median" in value


def _limits(measured: Sequence[Line], by_name: Mapping[str, Row]) -> list[str]:
    """What keeps rows from their goals that were missed."""
    names = dict.fromkeys(one["row"] for one in measured if not one["reached"])
    found = [f"- **{name}**: {by_name[name].limit}" for name in names if by_name[name].limit]
    return (
        ["", "Where a goal is missed, what limits the figure and what was tried:", "", *found]
        if found
        else []
    )


def _failures(measured: Sequence[Line]) -> list[str]:
    found = [
        f"- {one['row']}, {one['size']}, {name}: {why}"
        for one in measured
        for name, why in one.get("failed", {}).items()
    ]
    return ["", "Without a figure:", "", *found] if found else []
