"""Each event is one line, at a time that says its zone."""

from __future__ import annotations

import json
import logging
import re

import pytest

from controlplane.logs import JsonLines, TextLines


def event(message: str) -> logging.LogRecord:
    record = logging.LogRecord("controlplane.api", logging.INFO, "", 0, message, (), None)
    record.created = 1795712580.25
    return record


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()], ids=["text", "json"])
def test_what_comes_from_outside_makes_no_second_event(formatter: logging.Formatter) -> None:
    line = formatter.format(event("first\r\n2026-11-27T00:00:00.000Z ERROR   made up"))
    assert not re.search(r"[\r\n]", line)
    assert "made up" in line


def test_times_are_utc_and_say_so() -> None:
    assert TextLines().format(event("x")).startswith("2026-11-26T17:03:00.250Z INFO    controlp")
    assert json.loads(JsonLines().format(event("x")))["time"] == "2026-11-26T17:03:00.250Z"
