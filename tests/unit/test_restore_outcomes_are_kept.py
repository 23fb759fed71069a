"""What became of each container outlives the agent, in a file that does not grow for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.restore.outcome import KEPT, Action, Outcome, OutcomeLog


def outcome(number: int, **changes: Any) -> Outcome:
    return Outcome(action=Action.COLD, container_id=str(number), at="2026-01-01", **changes)


def test_they_are_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "snap" / "restores"
    log = OutcomeLog(file)
    log.add(outcome(1, code="no_grant", reason="no grant"))
    assert log.counts[Action.COLD, "no_grant"] == 1
    [kept] = OutcomeLog(file).recent
    assert kept == outcome(1, code="no_grant", reason="no grant", sequence=kept.sequence)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "restores"
    OutcomeLog(file).add(outcome(1))
    with file.open("ab") as stream:
        stream.write(b'{"action":"co')
    assert [one.container_id for one in OutcomeLog(file).recent] == ["1"]


def test_the_file_stays_small(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path / "restores")
    for number in range(3 * KEPT):
        log.add(outcome(number, details="x" * 1000))
    assert len(log.recent) == KEPT
    assert (tmp_path / "restores").stat().st_size < 3 * KEPT * 1400


def test_they_are_news_until_they_are_told(tmp_path: Path) -> None:
    file = tmp_path / "restores"
    log = OutcomeLog(file)
    for number in range(3):
        log.add(outcome(number))
    first, second, _ = log.untold(0)
    log.told(first.sequence)
    assert OutcomeLog(file).untold(0) == log.untold(0) == log.untold(first.sequence)
    assert log.untold(0)[0] == second
    log.told(second.sequence + 10**18)  # never given out: another node's word
    assert len(log.untold(0)) == 2


def test_sequences_rise_after_the_file_was_lost(tmp_path: Path) -> None:
    file = tmp_path / "restores"
    OutcomeLog(file).add(outcome(1))
    [before] = OutcomeLog(file).recent
    file.unlink()
    log = OutcomeLog(file)
    log.add(outcome(2))
    assert log.recent[0].sequence > before.sequence
