"""The page of ``./dev bench circle``: a row for each start, and whether the goal was reached."""

from __future__ import annotations

from dataclasses import replace

from bench.circle import report
from bench.circle.report import Start

COLD = Start(what="the first pod", node="node1", restored=False, started_s=1, ready_s=61)
WARM = Start(
    what="scaled up",
    node="node2",
    restored=True,
    started_s=2,
    ready_s=4,
    prepare_ms=120,
    restore_ms=90,
    let_go_ms=400,
)


def test_every_start_has_a_row() -> None:
    page = report.page([COLD, WARM], {"cores": 2, "load_average": 0.1}, "2026-01-01")
    assert "| the first pod | node1 | cold | 0 s | 0 s | 1 s | **61 s** | - | - | - | - |" in page
    assert (
        "| node2 | restored | 0 s | 0 s | 2 s | **4 s** | 120 ms | 90 ms | 400 ms | yes |" in page
    )
    assert "Provisional" not in page
    widths = {
        line.count("|") for line in page.splitlines() if line.startswith(("| pod", "|---|---|-"))
    }
    assert len(widths) == 1


def test_a_busy_machine_is_told() -> None:
    assert "Provisional" in report.page([COLD], {"load_average": 7.5}, "2026-01-01")


def test_the_goal_is_missed_by_a_late_or_a_cold_one() -> None:
    assert report.is_kept([COLD, WARM])
    assert not report.is_kept([COLD, replace(WARM, ready_s=5)])
    assert not report.is_kept([COLD, WARM, replace(WARM, restored=False)])
    assert not report.is_kept([COLD])
