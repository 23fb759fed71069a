"""``python -m dev_tools COMMAND``, called by ``./dev``."""

from __future__ import annotations

import sys

from bench import __main__ as bench
from deploy.devcluster import __main__ as devcluster
from deploy.devnode import __main__ as devnode
from deploy.devnode import lifecycle
from dev_tools import checks, demo


def main(argv: list[str]) -> int:
    """Run one command; its exit status."""
    lifecycle.interrupt_on_signals()
    command, rest = argv[0], argv[1:]
    if command == "demo":
        return demo.main(rest)
    if command == "bench":
        return bench.main(rest)
    if command == "lint":
        return checks.lint()
    if command == "test":
        return checks.test(rest)
    if command == "test-fast":
        return checks.test_fast(rest)
    if command == "e2e":
        return checks.e2e(rest)
    if command == "cluster":
        return devcluster.run(rest)
    return devnode.run(rest)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
