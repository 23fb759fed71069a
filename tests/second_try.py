"""Tests on real parts have a second try; whatever needed it is named at the end, with what went wrong first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pytest

REAL: Final = ("integration", "e2e")  # folders below tests/
PAUSE_S: Final = 5.0  # before the second try: what the first one left may still be going
AT_MOST: Final = 12  # second tries in a run: where more fails, something is broken, and all would take twice as long
_TITLE: Final = "passed only at the second try"
_LOST: Final = "the first try of what failed at both"


def pytest_configure(config: pytest.Config) -> None:
    """Bound the second tries, unless who runs the tests says how many."""
    if config.option.max_suite_reruns is None:
        config.option.max_suite_reruns = AT_MOST


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Give the tests on real parts, and no others, a second try."""
    for item in items:
        here = item.path.relative_to(item.config.rootpath).parts
        if here[0] == "tests" and here[1] in REAL:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=PAUSE_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what went wrong at first tries: what passed then is to be mended all the same, and what failed again may
    have done so for what the first try left behind.
    """
    stats = terminalreporter.stats
    lost = {report.nodeid for kind in ("failed", "error") for report in stats.get(kind, ())}
    first = stats.get("rerun", ())
    _tell(terminalreporter, _LOST, [report for report in first if report.nodeid in lost])
    _tell(terminalreporter, _TITLE, [report for report in first if report.nodeid not in lost])


def _tell(
    terminalreporter: pytest.TerminalReporter, title: str, first: Sequence[pytest.TestReport]
) -> None:
    if not first:
        return
    terminalreporter.section(title, yellow=True, bold=True)
    for report in first:
        terminalreporter.section(f"{report.nodeid} ({report.when})", sep="_", yellow=True)
        terminalreporter.write_line(report.longreprtext)
        for name, content in report.sections:
            terminalreporter.section(name, sep="-")
            terminalreporter.write_line(content)
    for nodeid in dict.fromkeys(report.nodeid for report in first):
        terminalreporter.write_line(f"{title}: {nodeid}", yellow=True)
