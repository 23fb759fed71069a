"""The requests that docs/operations.md begins with are ones that the API takes, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.fakes.api_server import Server

PAPER: Final = Path(__file__).parents[3] / "docs/operations.md"
CALL: Final = re.compile(
    r"^call (?:-X (?P<method>\w+) )?\$SNAP(?P<path>\S+)(?: -d '(?P<body>.*?)')?"
)


def _requests() -> list[tuple[str, str, str]]:
    section = PAPER.read_text().split("## First steps\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("call ")]
    found = [one for one in map(CALL.match, lines) if one]
    assert len(found) == len(lines) > 5
    return [
        (one["method"] or ("POST" if one["body"] else "GET"), one["path"], one["body"] or "")
        for one in found
    ]


async def test_they_are_taken_in_their_order(server: Server) -> None:
    seen, checkpoint_id = {}, ""
    for method, path, body in _requests():
        # the fake's node is of another cluster, where there is another registry too
        sent = body.replace('"web-1"', '"test-app", "cluster_name": "c1", "registry": "images"')
        raw = sent.encode() if sent else None
        answer = await server.call(method, path.replace("$ID", checkpoint_id), raw=raw)
        seen[path] = answer.status
        checkpoint_id = answer.json.get("checkpoint_id", checkpoint_id)
    assert seen.pop("/checkpoint/$ID/restore") == 502, "that one needs an API server"
    assert set(seen.values()) == {200}, seen
