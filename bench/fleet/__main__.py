"""``python -m bench.fleet``: measure; prints each figure, then all of them as one line of JSON.

A whole run (every size as it is given by default) is written to bench/results and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

from bench.fleet import conducting, plan, report
from bench.fleet.conducting import Run
from bench.fleet.figures import Figure

FAILED: Final = 1
MISSED: Final = 2
_SMOKE: Final = Run(40, 2.0, (plan.Shape(10, 2),), 4, settle_s=0.5)


def main(argv: Sequence[str] | None = None, load_average: float | None = None) -> int:
    """Run it; 0 when every goal is reached, ``MISSED`` when not, ``FAILED`` when it broke off.

    Args:
        load_average: before other benches ran, where they did.
    """
    options = _parse(argv)
    run = _SMOKE if options.smoke else _run(options)
    if load_average is None:
        load_average = os.getloadavg()[0]
    figures: list[Figure] = []
    try:
        for figure in conducting.conduct(run, _say):
            figures.append(figure)
            print(json.dumps(figure.json(), ensure_ascii=False), flush=True)
    except RuntimeError as failure:
        _say(f"bench fleet: failed: {failure}")
        return FAILED
    if run == _run(_parse([])):
        _say(f"bench fleet: written to {report.write(figures, load_average)}")
    print(json.dumps([figure.json() for figure in figures], ensure_ascii=False))
    return 0 if all(figure.reached for figure in figures) else MISSED


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev bench fleet", description=__doc__)
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--updates", type=int, default=5000, help="of jobs, a second [5000]")
    parser.add_argument(
        "--jobs-each",
        type=int,
        action="append",
        help="jobs that a reporting agent has; may be repeated [4 and 1]",
    )
    parser.add_argument("--readers", type=int, default=49, help="that see their own jobs [49]")
    parser.add_argument("--seconds", type=float, default=60.0, help="of rest [60]")
    parser.add_argument(
        "--part",
        action="append",
        choices=sorted(conducting.PARTS),
        help="alone; may be repeated [all]",
    )
    parser.add_argument("--smoke", action="store_true", help="a few agents, in seconds")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> Run:
    shapes = [plan.shape(options.updates, each) for each in options.jobs_each or (4, 1)]
    fitting = [plan.Shape(min(s.agents, options.agents), s.jobs_each) for s in shapes]
    parts = frozenset(options.part or conducting.PARTS)
    return Run(options.agents, options.seconds, fitting, options.readers, parts=parts)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
