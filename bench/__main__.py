"""``python -m bench [ROW …]``: all rows, or some; the last line printed for a row is its JSON."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

from bench import contest, machine, report
from bench.admission import __main__ as admission
from bench.case import Case, parse_size, size_text
from bench.circle import __main__ as circle
from bench.contest import Outcome
from bench.fleet import __main__ as fleet
from bench.lab import Lab
from bench.report import Result
from bench.row import Row
from bench.rows import BY_NAME, ROWS
from deploy.devnode import lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.world import opened

ADMISSION: Final = "admission"
CIRCLE: Final = "circle"  # of a cluster
SMOKE: Final = 64 << 20
FLEET: Final = "fleet"  # the row that needs no node; it has options of its own
_LONG: Final = frozenset({"at-rest"})  # rows that a smoke run leaves out: they only wait


def _size(text: str) -> int:
    """``parse_size`` whose words argparse tells."""
    try:
        return parse_size(text)
    except ValueError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from cause


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What to measure; ends the program with a sentence where that can't be."""
    parser = argparse.ArgumentParser(prog="dev bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join([*BY_NAME, FLEET])}")
    parser.add_argument(
        "--size", action="append", type=_size, help="such as 256MiB or 1GiB; may be repeated"
    )
    parser.add_argument("--data", choices=("half", "full"), help="half random or random")
    parser.add_argument(
        "--runs",
        type=int,
        default=report.WANTED_RUNS,
        help=f"of each contestant [{report.WANTED_RUNS}]",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="every row once, with 64 MiB; nothing is written"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write docs/benchmarks.md although only some rows are measured; the others stay in it",
    )
    parser.add_argument("--instance", default="bench", help="name of the nodes to start [bench]")
    args = parser.parse_args(argv)
    if alone := {FLEET, ADMISSION, CIRCLE} & set(args.rows):
        parser.error(f"{min(alone)} is measured by itself: ./dev bench {min(alone)}")
    if unknown := set(args.rows) - set(BY_NAME):
        parser.error(
            f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}"
        )
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    return args


def _cases(args: argparse.Namespace) -> list[tuple[Row, Case]]:
    """What to measure, each row's first case before all others: stopped early, the most is there."""
    rows = [BY_NAME[name] for name in args.rows] or list(ROWS)
    if args.smoke and not args.rows:
        rows = [row for row in rows if row.name not in _LONG]
    runs = 1 if args.smoke else args.runs
    sizes = args.size or ((SMOKE,) if args.smoke else ())
    found: dict[tuple[str, int, str], tuple[int, Row, Case]] = {}
    for row in rows:
        for place, (size, kind) in enumerate(_wanted(row, sizes, args.data)):
            case = Case(size, kind, runs)
            found.setdefault((row.name, size, kind), (min(place, 1), row, case))
    return [(row, case) for _, row, case in sorted(found.values(), key=lambda one: one[0])]


def _wanted(row: Row, sizes: Sequence[int], kind: str | None) -> list[tuple[int, str]]:
    """The row's own cases, or those that were asked for."""
    kinds = [kind] if kind else list(dict.fromkeys(data for _, data in row.cases))
    if sizes:
        return list(itertools.product(sizes, kinds))
    return [(size, kind or data) for size, data in row.cases]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Contests:
    """Holds the rows' contests; rows that are looked at differently share their runs."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._held: dict[tuple[str, Case], Result] = {}

    def result(self, row: Row, case: Case) -> Result:
        """Of one row; what fails is part of it, so that the others still run."""
        source = BY_NAME[row.source] if row.source else row
        if (source.name, case) not in self._held:
            self._held[source.name, case] = _measure(self._lab, source, case)
        held = self._held[source.name, case]
        return held if source is row else held.looked_at(row)


def _measure(lab: Lab, row: Row, case: Case) -> Result:
    _say(f"{row.name}, {size_text(case.size_bytes)}, {report.DATA_WORDS[case.data]}:")
    try:
        with row.opened(lab, case) as contestants:
            return Result(row, case, contest.hold(contestants, case.runs, _say))
    except contest.FAILURES as cause:
        failure = contest.words(cause)
        _say(f"  failed: {failure}")
        return Result(row, case, Outcome({}, {"setting up": failure}))


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every row that is built gave its figures, else 1."""
    lifecycle.interrupt_on_signals()
    if list(argv[:1]) == [ADMISSION]:  # needs no nodes
        return admission.main(argv[1:])
    if list(argv[:1]) == [CIRCLE]:
        return circle.main(argv[1:])
    if argv[:1] == [FLEET]:
        return fleet.main(argv[1:])
    args = parse(argv)
    load_average = os.getloadavg()[0]
    results: list[Result] = []
    try:
        with opened(Instance(args.instance), _say) as world:
            lab = Lab(world)
            is_kept = (args.write or not args.rows) and not args.smoke
            known = machine.facts(lab) if is_kept else {}
            contests = _Contests(lab)
            for row, case in _cases(args):
                result = contests.result(row, case)
                results.append(result)
                if known:  # at once: a run may be interrupted
                    written = report.write(results, known, ROWS)
                print(json.dumps(result.json(), ensure_ascii=False), flush=True)
    except lifecycle.PROBLEMS as problem:
        _say(f"bench: failed: {problem}")
        return 1
    if known:
        _say(f"bench: written to {os.path.relpath(written)} and docs/benchmarks.md")
    failed = any(r.outcome and r.outcome.failures for r in results)
    if not args.rows:
        os.sync()  # what the rows wrote is not on its way to the disk any more
        failed |= fleet.main(["--smoke"] if args.smoke else [], load_average) == fleet.FAILED
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
