"""The checked-in copy of the reference has everything that the original has.

Collected only where SNAP_REFERENCE_FILE names the original (tests/conftest.py).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.reference import contract

ORIGINAL = os.environ["SNAP_REFERENCE_FILE"]
METHOD_LINE = re.compile(r"^(GET|POST|PUT|DELETE|WS) (/\S+)$", re.MULTILINE)


def test_every_method_line_is_there() -> None:
    found = METHOD_LINE.findall(Path(ORIGINAL).read_text())
    assert found
    assert found == [(r.method, r.path) for r in contract.reference().requests]


def test_every_json_block_is_there() -> None:
    reference = contract.reference()
    kept = [r.body for r in reference.requests] + [r.answer for r in reference.requests]
    kept.append(dict(reference.error))
    kept += [b for e in reference.examples for b in json_blocks(e["shell"])]
    blocks = list(json_blocks(Path(ORIGINAL).read_text()))
    assert blocks
    assert [block for block in blocks if block not in kept] == []


def test_every_command_of_the_examples_is_there() -> None:
    scripts = "".join(example["shell"] for example in contract.reference().examples)
    scripts += "".join(request.script for request in contract.reference().requests)
    text = Path(ORIGINAL).read_text()
    commands = [
        line
        for line in text.splitlines()
        if re.match(r"^(curl|kubectl|-H|-d|const|ws\.|console|#|CHECKPOINT_RESPONSE)", line)
    ]
    assert commands
    assert [line for line in commands if line not in scripts] == []


def json_blocks(text: str) -> Iterator[Any]:
    """Every outermost JSON object that begins at the start of a line, or after ``-d '``."""
    decoder, end = json.JSONDecoder(), 0
    for begin in re.finditer(r"(?:^|-d ')(?={\n)", text, re.MULTILINE):
        if begin.end() >= end:
            block, end = decoder.raw_decode(text, begin.end())
            yield block
