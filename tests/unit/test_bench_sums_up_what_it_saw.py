"""The bench's own arithmetic: turns, medians, gaps between ticks, goals."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

import bench.__main__
from bench import contest, ticks
from bench.case import OURS, STOCK, Case, Figures, Sample, Unusable, parse_size, size_text
from bench.report import Result, merged, table
from bench.rows import BY_NAME, ROWS


def test_turns_alternate_and_who_failed_is_left_out() -> None:
    order: list[str] = []

    def of(name: str, *, fails: bool = False) -> Any:
        def run() -> Sample:
            order.append(name)
            if fails:
                raise Unusable("no")
            return Sample(float(len(order)))

        return run

    told = contest.hold({"a": of("a"), "b": of("b"), "c": of("c", fails=True)}, 3, lambda _: None)
    assert order == ["a", "b", "c", "b", "a", "a", "b"]
    assert told.failures == {"c": "no"}
    assert told.figures["a"].median == 5


def test_the_largest_gap_is_the_one_that_touches_the_window() -> None:
    at = [1.0, 5.0, 5.1, 6.4, 6.5, 9.9]  # gaps outside of 5.2 … 6.45 do not count
    lines = [f"2026-01-02T03:04:05.123456789Z stdout F tick {n} {t}" for n, t in enumerate(at)]
    pod = cast("Any", SimpleNamespace(raw_lines=lambda: lines))
    assert ticks.longest_gap_s(pod, 5.2, 6.45) == pytest.approx(1.3)


@pytest.mark.parametrize(("text", "size"), [("64MiB", 64 << 20), ("1GiB", 1 << 30)])
def test_sizes_are_read_and_written(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert size_text(size).replace(" ", "") == text


@pytest.mark.parametrize("text", ["1", "1GB", "0MiB", "-1GiB", ""])
def test_other_words_are_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)


def test_a_row_without_its_rivals_claims_nothing() -> None:
    case = Case(1 << 30, "half", 1)
    alone = contest.Outcome({OURS: Figures([Sample(2.0)])}, {STOCK: "it failed"})
    for row in ROWS:
        made = Result(row, case, alone).json()
        assert list(made)[-1] == "ratio"
        assert made["ratio"] is None
        assert made["failed"] == {STOCK: "it failed"}
    faster = contest.Outcome(
        {OURS: Figures([Sample(2.0)]), STOCK: Figures([Sample(30.0), Sample(40.0)])}, {}
    )
    assert Result(BY_NAME["checkpoint"], case, faster).json()["ratio"] == 17.5


def test_rows_of_the_same_runs_see_their_own_figures() -> None:
    runs = {
        STOCK: Figures([Sample(3.0, {"wall_s": 9.0}), Sample(4.0, {"wall_s": 8.0})]),
        "bare": Figures([Sample(1.0)]),
        OURS: Figures([Sample(0.5, {"wall_s": 0.5}), Sample(0.4, {"wall_s": 0.6})]),
    }
    case = Case(1 << 30, "half", 2)
    pause = Result(BY_NAME["pause"], case, contest.Outcome(runs, {}))
    seen = pause.looked_at(BY_NAME["checkpoint"]).json()
    assert seen["ratio"] == pytest.approx(8.5 / 0.55, rel=1e-3)
    assert "bare" not in seen


def test_another_contestant_can_be_ours_for_a_row() -> None:
    runs = {
        STOCK: Figures([Sample(3.0)]),
        BY_NAME["restore-warm"].ours: Figures([Sample(1.5)]),
        OURS: Figures([Sample(0.1)]),
    }
    lazy = Result(BY_NAME["restore-lazy"], Case(1 << 30, "half", 1), contest.Outcome(runs, {}))
    assert lazy.json()["ratio"] == 30
    assert lazy.looked_at(BY_NAME["restore-warm"]).json()["ratio"] == 2


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        pytest.param(
            ["pause", "--size", "1TB"], "'1TB' is no size; write 64MiB or 1GiB", id="size"
        ),
        pytest.param(["pauze"], "there is no row pauze", id="row"),
        pytest.param(
            ["pause", "fleet"], "fleet is measured by itself: ./dev bench fleet", id="fleet"
        ),
        pytest.param(["pause", "--runs", "0"], "--runs must be at least 1", id="runs"),
    ],
)
def test_what_can_not_be_measured_is_refused_in_one_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.__main__.parse(argv)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_rows_that_are_measured_anew_leave_the_others_as_they_were() -> None:
    case = Case(1 << 30, "half", 5)

    def line(name: str, ours_s: float, at: str) -> dict[str, Any]:
        figures = {OURS: Figures([Sample(ours_s)]), STOCK: Figures([Sample(30.0)])}
        return Result(BY_NAME[name], case, contest.Outcome(figures, {})).json() | {"at": at}

    before = [line("push", 10.0, "2026-01-01T"), line("checkpoint", 1.0, "2026-01-01T")]
    gone = before[0] | {"row": "of an earlier version"}
    fresh = [line("push", 3.0, "2026-01-02T"), line("restore-cold", 2.0, "2026-01-02T")]
    lines = merged([gone, *before], fresh, BY_NAME)
    assert lines == [fresh[0], before[1], fresh[1]]
    text = table(lines, ROWS, [], {"cores": 2}, datetime(2026, 1, 2, tzinfo=UTC))
    assert "| push | 1 GiB, half random | 2026-01-02 | 30 s (30-30) | 3 s (3-3) |" in text
    assert "| checkpoint | 1 GiB, half random | 2026-01-01 | 30 s (30-30) | 1 s (1-1) |" in text
    assert "an earlier version" not in text
