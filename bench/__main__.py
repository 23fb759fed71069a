"""``python -m bench [ROW …]``: all rows, or some; the last line printed for a row is its JSON."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from bench import contest, machine, report
from bench.case import Case, NotMeasured, parse_size, size_text
from bench.contest import Outcome
from bench.lab import Lab
from bench.report import Result
from bench.row import Row
from bench.rows import BY_NAME, ROWS
from deploy.devnode import lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.world import opened

SMOKE: Final = 64 << 20
_LONG: Final = frozenset({"at-rest"})  # rows that a smoke run leaves out: they only wait


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument(
        "--size", action="append", type=parse_size, help="such as 256MiB or 1GiB; may be repeated"
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
    parser.add_argument("--instance", default="bench", help="name of the nodes to start [bench]")
    args = parser.parse_args(argv)
    if unknown := set(args.rows) - set(BY_NAME):
        parser.error(
            f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}"
        )
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    return args


def _cases(args: argparse.Namespace) -> Iterator[tuple[Row, Case]]:
    wanted = [BY_NAME[name] for name in args.rows] or list(ROWS)
    for row in wanted:
        if args.smoke and row.name in _LONG and not args.rows:
            continue
        sizes = args.size or ((SMOKE,) if args.smoke else row.sizes)
        kinds = (args.data,) if args.data else row.data
        for size, kind in itertools.product(sizes, kinds):
            yield row, Case(size, kind, 1 if args.smoke else args.runs)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure(lab: Lab, row: Row, case: Case) -> Result:
    """One row; what fails is part of the result, so that the others still run."""
    _say(f"{row.name}, {size_text(case.size_bytes)}, {report.DATA_WORDS[case.data]}:")
    try:
        with row.opened(lab, case) as contestants:
            return Result(row, case, contest.hold(contestants, case.runs, _say))
    except NotMeasured as cause:
        return Result(row, case, None, str(cause))
    except contest.FAILURES as cause:
        failure = contest.words(cause)
        _say(f"  failed: {failure}")
        return Result(row, case, Outcome({}, {"setting up": failure}))


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every row that is built gave its figures, else 1."""
    lifecycle.interrupt_on_signals()
    args = _parse(argv)
    results: list[Result] = []
    try:
        with opened(Instance(args.instance), _say) as world:
            lab = Lab(world)
            known = machine.facts(lab) if not args.rows and not args.smoke else {}
            for row, case in _cases(args):
                result = _measure(lab, row, case)
                results.append(result)
                print(json.dumps(result.json(), ensure_ascii=False), flush=True)
    except lifecycle.PROBLEMS as problem:
        _say(f"bench: failed: {problem}")
        return 1
    if known:
        _say(
            f"bench: written to {os.path.relpath(report.write(results, known))} and docs/benchmarks.md"
        )
    return 1 if any(r.outcome and r.outcome.failures for r in results) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
