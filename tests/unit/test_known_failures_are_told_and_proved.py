"""Every known failure has a test on a real cluster, and what users must know of it is in docs/limits.md."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.failures import lines
from tests.e2e.failures.lines import Line

ROOT: Final = Path(__file__).resolve().parents[2]
CLUSTER: Final = "e2e/test_every_known_failure_is_met.py"
LINES: Final = lines.read()
ALL: Final = [line for part in LINES.values() for line in part]


def test_names_are_used_once() -> None:
    assert len({line.id for line in ALL}) == len(ALL)


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    functions = (n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {one.name for one in functions if one.name.startswith("test_")}


def named(line: Line) -> list[tuple[str, str]]:
    """The file and the function of each proof."""
    parts = (proof.rpartition("::") for proof in line.proofs)
    return [(file or CLUSTER, name) for file, _, name in parts]


@pytest.mark.parametrize("line", ALL, ids=lambda line: line.id)
def test_its_proofs_are_there(line: Line) -> None:
    assert [name for file, name in named(line) if name not in functions_of(file)] == []
    assert any(file == CLUSTER for file, _ in named(line))


def test_every_proof_is_of_a_line() -> None:
    proofs = {name for line in ALL for file, name in named(line) if file == CLUSTER}
    assert functions_of(CLUSTER) - proofs == {"test_the_originals_are_none_the_worse"}


@pytest.mark.parametrize("part", LINES)
def test_the_papers_have_its_rows(part: str) -> None:
    text = (ROOT / "docs/limits.md").read_text()
    rows = lines.table(LINES[part])
    assert rows in text, f"docs/limits.md needs, one after the other:\n{rows}"
