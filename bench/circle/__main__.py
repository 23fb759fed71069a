"""``./dev bench circle``: a slow Deployment's time to ready, cold and restored; 1 if a goal is missed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

from bench import machine
from bench.circle import going, report
from deploy.devcluster import lifecycle
from deploy.devnode.instance import Instance
from deploy.devnode.lifecycle import PROBLEMS

ROUNDS: Final = 62_000_000  # over 60 s of one core of the development machine


def main(argv: Sequence[str]) -> int:
    """Run it; its exit status."""
    parser = argparse.ArgumentParser(prog="dev bench circle", description=__doc__)
    parser.add_argument("--replicas", type=int, default=6, help="the first one included [6]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of computing [{ROUNDS}]")
    parser.add_argument(
        "--write", action="store_true", help="docs/benchmarks-circle.md and its JSON"
    )
    parser.add_argument("--instance", default="bench", help="name of the nodes to start [bench]")
    options = parser.parse_args(argv)
    where = machine.outline()
    try:
        with lifecycle.opened(Instance(options.instance), _say) as cluster:
            starts = going.go(cluster, options.replicas, options.rounds, _say)
    except PROBLEMS as problem:
        _say(f"bench: failed: {problem}")
        return 1
    for start in starts:
        print(report.line(start))
    print(json.dumps([report.as_told(start) for start in starts]))
    if options.write:
        written = report.write(starts, where)
        _say(f"bench: written to {os.path.relpath(written)} and docs/benchmarks-circle.md")
    return 0 if report.is_kept(starts) else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
