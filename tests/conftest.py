"""What every test shares: the repository on the path, and the options of the long tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.second_try import (
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_terminal_summary,
)

__all__ = ["pytest_collection_modifyitems", "pytest_configure", "pytest_terminal_summary"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much is sent at random: 20,000 cases in CI, few where somebody waits for the answer."""
    many = os.environ.get("CI") == "true"
    parser.addoption("--fuzz-cases", type=int, default=20_000 if many else 1_000)
    parser.addoption("--fuzz-seed", type=int, default=1)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """The comparison with the reference's original, where there is no original to compare with."""
    compares = collection_path.name == "test_the_reference_is_copied_whole.py"
    return True if compares and "SNAP_REFERENCE_FILE" not in os.environ else None


def pytest_report_header() -> str:
    """Say which reference the copy under tests/reference is held against."""
    original = os.environ.get("SNAP_REFERENCE_FILE")
    return (
        f"reference: compared with {original}"
        if original
        else (
            "reference: the checked-in copy (SNAP_REFERENCE_FILE would name an original to compare it with)"
        )
    )
