"""The journal: whole or not at all, no secrets after the end, numbers that rise for ever."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.formats.jobs import JobKind, JobState
from agent.jobs.journal import Entry, Journal, is_job_id
from tests.fakes.jobs import a_job


def opened(folder: Path) -> tuple[Journal, tuple[Entry, ...]]:
    """A journal over ``folder`` and what it holds."""
    journal = Journal(folder)
    return journal, journal.open()


@pytest.mark.parametrize("kind", list(JobKind))
def test_every_kind_is_read_back_as_it_was(tmp_path: Path, kind: JobKind) -> None:
    journal, _ = opened(tmp_path)
    entry = Entry(job_id="J1", epoch=3, job=a_job(kind), accepted_s=1.0)
    journal.write(entry)
    assert opened(tmp_path)[1] == (entry,)


def test_entries_are_for_root_only_and_come_oldest_first(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path / "jobs")
    for job_id, accepted_s in [("A", 3.0), ("B", 1.0), ("C", 2.0)]:
        journal.write(Entry(job_id=job_id, epoch=1, job=None, accepted_s=accepted_s))
    assert [entry.job_id for entry in opened(tmp_path / "jobs")[1]] == ["B", "C", "A"]
    assert (tmp_path / "jobs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "jobs" / "A.json").stat().st_mode & 0o777 == 0o600


def test_a_half_written_file_is_dropped_and_a_damaged_one_set_aside(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    journal.write(Entry(job_id="GOOD", epoch=1, job=None))
    (tmp_path / "HALF.json.tmp").write_text("{")
    (tmp_path / "BAD.json").write_text('{"job_id": 7}')
    (tmp_path / "OTHER.json").write_bytes((tmp_path / "GOOD.json").read_bytes())
    assert [entry.job_id for entry in opened(tmp_path)[1]] == ["GOOD"]
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["BAD.damaged", "GOOD.json", "OTHER.damaged"]


def test_an_ended_job_keeps_no_password(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    entry = Entry(job_id="J1", epoch=1, job=a_job())
    journal.write(entry)
    assert "s3cret-password" in (tmp_path / "J1.json").read_text()  # the push must survive a crash
    journal.write(entry.moved(JobState.RUNNING).moved(JobState.COMPLETED))
    assert "s3cret-password" not in (tmp_path / "J1.json").read_text()
    assert "s3cret-password" not in repr(entry)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.FAILED])
def test_an_ended_job_moves_no_more(state: JobState) -> None:
    entry = Entry(job_id="J1", epoch=1, job=None).moved(JobState.CANCELLED)
    with pytest.raises(ValueError, match="can't become"):
        entry.moved(state)


def test_numbers_rise_over_crashes_and_above_what_the_other_side_has_seen(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    given = [journal.next_sequence() for _ in range(1500)]
    again, _ = opened(tmp_path)  # the first one was killed
    given.append(again.next_sequence())
    again.raise_sequence(100_000)
    given.append(again.next_sequence())
    third, _ = opened(tmp_path)
    given.append(third.next_sequence())
    assert given == sorted(set(given))
    assert given[-2] == 100_001


@pytest.mark.parametrize("text", ["", "..", "../x", "a/b", "a.b", "x" * 65, "-x"])
def test_what_could_be_a_path_is_no_job_id(text: str) -> None:
    assert not is_job_id(text)


def test_the_format_is_readable_by_hand(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    journal.write(Entry(job_id="J1", epoch=1, job=a_job(), step="checkpoint/0"))
    written = msgspec.json.decode((tmp_path / "J1.json").read_bytes())
    assert (written["step"], written["job"]["kind"]) == ("checkpoint/0", "checkpoint_and_push")
