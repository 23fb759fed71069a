"""``python -m dev_tools COMMAND``, called by ``./dev``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import __main__ as bench
from deploy.devcluster import __main__ as devcluster
from deploy.devnode import __main__ as devnode
from deploy.devnode import lifecycle
from deploy.helm import __main__ as manifests
from deploy.images import __main__ as images
from dev_tools import checks, demo


def main(argv: list[str]) -> int:
    """Run one command; its exit status."""
    lifecycle.interrupt_on_signals()
    command, rest = argv[0], argv[1:]
    commands: dict[str, Callable[[list[str]], int]] = {
        "bench": bench.main,
        "cluster": devcluster.run,
        "demo": demo.main,
        "e2e": checks.e2e,
        "images": images.main,
        "lint": lambda _: checks.lint(),
        "manifests": lambda _: manifests.main(),
        "node": devnode.run,
        "test": checks.test,
        "test-fast": checks.test_fast,
    }
    return commands[command](rest)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
