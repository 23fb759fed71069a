"""What an answer lacks of a documented one is told by its path."""

from __future__ import annotations

from tests.reference import contract


def test_differences_are_told() -> None:
    wanted = {"a": 1, "b": ["x"], "c": {"d": True}, "e": None}
    assert (
        list(contract.differences(wanted, {"a": 2.5, "b": ["y"], "c": {"d": False}, "e": 1})) == []
    )
    got: dict[str, object] = {"a": "1", "b": [], "c": {}, "e": None}
    assert list(contract.differences(wanted, got)) == [
        "a is a string, not a number",
        "b is empty, so what is in it can't be compared",
        "c.d is missing",
    ]
