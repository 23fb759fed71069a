"""The Python program of docs/post-restore.md does what the page says, when it is posted to as an agent does it."""

from __future__ import annotations

import asyncio
import http.server
import json
import random
import re
import urllib.request
from pathlib import Path
from typing import Any

from agent.runtimes import pod_http
from agent.runtimes.pod_http import Target

PAGE = Path(__file__).parents[2] / "docs/post-restore.md"


async def test_the_python_program_takes_another_identity() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(program, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    handler = type("Quiet", (names["Handler"],), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = asyncio.create_task(asyncio.to_thread(server.serve_forever, 0.05))
        port = server.server_address[1]

        def asked() -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return json.loads(answer.read())

        try:
            before = await asyncio.to_thread(asked)
            random.seed(1)
            would_come = random.random()  # noqa: S311 - what a clone would draw
            random.seed(1)
            body = json.dumps({"pod_name": "web-2", "pod_ip": "10.0.0.7"}).encode()
            assert await pod_http.post(Target("127.0.0.1", port, "/restored"), body, 5) == 204
            after = await asyncio.to_thread(asked)
        finally:
            await asyncio.to_thread(server.shutdown)
            await serving
    assert after["pod"] == "web-2"
    assert after["id"] != before["id"]
    assert random.random() != would_come  # noqa: S311
