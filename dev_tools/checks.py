"""The linters and the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.devnode import lifecycle
from deploy.devnode.instance import Instance

INTERRUPTED = 2  # pytest's exit code: somebody wants it to stop
SCRIPTS = Path(sysconfig.get_path("scripts"))
LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


def lint() -> int:
    """Run every linter, also after one has failed; 1 if any did."""
    failed = []
    for argv in LINTERS:
        print(f"--- {' '.join(argv)}", flush=True)
        if subprocess.call([str(SCRIPTS / argv[0]), *argv[1:]], stdin=subprocess.DEVNULL):
            failed.append(argv[0])
    print(f"lint: {', '.join(failed)} found something" if failed else "lint: ok")
    return 1 if failed else 0


def test_fast(arguments: Sequence[str]) -> int:
    """Unit and contract tests, without the real nodes."""
    # several at once, as half of their time is spent waiting; the slowest ones first
    folders = ["tests/contract/operating", "tests/contract", "tests/unit"]
    beside = ["-n", str(2 * (os.cpu_count() or 1)), "--maxschedchunk", "4"]
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    room = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="snap-test-", dir=room) as folder:
        environment = {**os.environ, "PYTEST_DEBUG_TEMPROOT": folder}
        return _pytest([*folders, "-m", "not node", *beside, *arguments], environment)


def test(arguments: Sequence[str]) -> int:
    """Every test (or those that ``arguments`` name), those on a cluster last; nodes and cluster are gone afterwards."""
    instance = Instance(os.environ.get("SNAP_DEV_INSTANCE", "test"))
    try:
        failed = _pytest(["--ignore=tests/e2e", *arguments])
    finally:
        if os.geteuid() == 0:
            with contextlib.suppress(lifecycle.Unsuitable), lifecycle.claimed(instance):
                lifecycle.down(instance)  # nobody else uses it
    if arguments or failed == INTERRUPTED:
        return failed
    return e2e([]) or failed


def e2e(arguments: Sequence[str]) -> int:
    """The tests on a real cluster, which is gone afterwards whatever happened."""
    named = any(
        not word.startswith("-") and Path(word.split("::")[0]).exists() for word in arguments
    )
    instance = Instance(os.environ.get("SNAP_DEV_INSTANCE", "e2e"))
    try:
        return _pytest([*([] if named else ["tests/e2e"]), *arguments])
    finally:
        with contextlib.suppress(lifecycle.Unsuitable), lifecycle.claimed(instance):
            lifecycle.down(instance)  # nobody else uses it


def _pytest(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run pytest; an interrupt reaches it too, and we wait until it has tidied up, however it ends then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments], stdin=subprocess.DEVNULL, env=environment
    )
    interrupted = False
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            interrupted = True
            process.send_signal(signal.SIGINT)
        else:
            return INTERRUPTED if interrupted else code
