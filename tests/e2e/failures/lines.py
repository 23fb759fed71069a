"""What is known to fail, with the tests that prove what becomes of it: ``lines.yaml``, read and checked."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

FILE: Final = Path(__file__).with_name("lines.yaml")


class Met(StrEnum):
    """How a failure is met."""

    WORKS = "works"
    REFUSED = "refused"
    COLD = "cold"
    TOLD = "told"


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One known failure.

    Attributes:
        proofs: names of tests.
        row: the two cells of its line in docs/limits.md; None: users need not know.
    """

    id: str
    what: str
    met: Met
    proofs: tuple[str, ...]
    row: tuple[str, str] | None = None


def read() -> dict[str, tuple[Line, ...]]:
    """All lines, by the part they belong to."""
    return msgspec.yaml.decode(FILE.read_bytes(), type=dict[str, tuple[Line, ...]])


def table(listed: tuple[Line, ...]) -> str:
    """The rows for users, as Markdown has them."""
    return "".join(f"| {line.row[0]} | {line.row[1]} |\n" for line in listed if line.row)
