"""A database of any version that was ever released opens with all its rows; a newer one does not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.errors import Broken
from controlplane.store import agents, checkpoints, clusters, migrations, users
from controlplane.store.database import FILE, open_store
from tests.integration.schemas.__main__ import FOLDER, dump

NUMBERS = range(1, len(migrations.STEPS) + 1)
TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
SHAPE = "SELECT type, name, tbl_name FROM sqlite_schema ORDER BY type, name"


def rows_of(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute(TABLES)]
        return {n: database.execute(f"SELECT count(*) FROM {n}").fetchone()[0] for n in names}  # noqa: S608


def shape_of(path: Path) -> tuple[int, list[tuple[str, str, str]], dict[str, set[str]]]:
    """Version, what there is, and the columns of each table, whatever their order."""
    with closing(sqlite3.connect(path)) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        there = database.execute(SHAPE).fetchall()
        names = [name for (name,) in database.execute(TABLES)]
        columns = {n: {c[1] for c in database.execute(f"PRAGMA table_info({n})")} for n in names}
    return version, there, columns


def statements(script: str) -> list[tuple[str, ...]]:
    """Everything that the schema of a database is made of."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(script)
        query = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
        return database.execute(query).fetchall()


@pytest.mark.parametrize("number", NUMBERS)
def test_there_is_a_database_of_the_schema_and_it_is_still_the_same(number: int) -> None:
    kept = FOLDER / f"{number:03}.sql"
    assert kept.exists(), "run: python -m tests.integration.schemas"
    as_it_was, as_it_is = statements(kept.read_text()), statements(dump(number))
    assert as_it_was == as_it_is, f"step {number} was released: add another step instead"


@pytest.mark.parametrize("number", NUMBERS)
async def test_an_old_database_opens_with_all_its_rows(tmp_path: Path, number: int) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.executescript((FOLDER / f"{number:03}.sql").read_text())
    before = rows_of(tmp_path / FILE)
    assert set(before.values()) == {1}
    store = open_store(tmp_path)
    try:
        assert [c.id for c in (await store.read(lambda db: checkpoints.page(db, {}, 10, None)))[0]]
        assert await store.read(lambda db: users.get(db, "kept"))
        assert await store.read(agents.everyone)
        assert await store.read(lambda db: clusters.get(db, "kept"))
    finally:
        store.close()
    after = rows_of(tmp_path / FILE)
    assert {name: after[name] for name in before} == before
    (tmp_path / "new").mkdir()
    open_store(tmp_path / "new").close()
    assert shape_of(tmp_path / FILE) == shape_of(tmp_path / "new" / FILE)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.executescript(dump(len(migrations.STEPS)))
        database.execute(f"PRAGMA user_version={len(migrations.STEPS) + 1}")
    before = shape_of(tmp_path / FILE)
    with pytest.raises(Broken, match="newer version"):
        open_store(tmp_path)
    assert shape_of(tmp_path / FILE) == before
