"""Write the databases of schemas that have none yet."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from controlplane.store import migrations

FOLDER: Final = Path(__file__).parent
AT: Final = "2026-01-15T10:30:00.000Z"
# what columns with a rule of their own may hold; others take any text or number
KNOWN: Final[dict[str, Any]] = {
    "role": "administrator",
    "state": "completed",
    "status": "completed",
    "place": "node",
    "kind": "checkpoint",
    "restore_mode": "lazy",
    "result_json": None,
    "error_json": None,
}


def main() -> None:
    """Make what is missing."""
    for number in range(1, len(migrations.STEPS) + 1):
        path = FOLDER / f"{number:03}.sql"
        if not path.exists():
            path.write_text(dump(number))


def dump(number: int) -> str:
    """A database of schema ``number`` as SQL text."""
    with closing(sqlite3.connect(":memory:")) as database:
        for step in migrations.STEPS[:number]:
            database.executescript(step)
        database.execute("PRAGMA foreign_keys=ON")
        _fill(database)
        lines = [f"PRAGMA user_version={number};", *database.iterdump()]
    return "\n".join(lines) + "\n"


def _fill(database: sqlite3.Connection) -> None:
    """One row in every table, those that others refer to first: all keys are the same word."""
    database.execute("PRAGMA defer_foreign_keys=ON")
    database.execute("BEGIN")
    database.execute("PRAGMA defer_foreign_keys=ON")
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    for (table,) in database.execute(tables).fetchall():
        columns = database.execute(f"PRAGMA table_info({table})").fetchall()
        values = [_value(name, kind) for _, name, kind, *_ in columns]
        marks = ", ".join("?" * len(values))
        database.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608 - of our schema
    database.execute("COMMIT")


def _value(name: str, kind: str) -> Any:
    if name in KNOWN:
        return KNOWN[name]
    if kind in {"INTEGER", "REAL"}:
        return 1
    if kind == "BLOB":
        return b"kept"
    if name.endswith(("_at", "_seen")) or name == "at":
        return AT
    if name.endswith("_json"):
        return "[]" if name in {"namespaces_json", "warnings_json"} else "{}"
    return "kept"


if __name__ == "__main__":
    main()
