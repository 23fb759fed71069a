"""What is no HTTP is answered in the API's own form and logged without a traceback; figures, readiness, SIGHUP."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path

import pytest

from tests.fakes.api_process import ApiProcess, running, until
from tests.fakes.node_agent import FakeAgent, pod

BODY = {"pod_name": "app", "namespace": "default"}


async def say(api: ApiProcess, sent: bytes) -> tuple[int, str, dict[str, object]]:
    """Send bytes as they are; status, head and JSON of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.http_port)
    try:
        async with asyncio.timeout(60):
            writer.write(sent)
            answer = await reader.read()  # it hangs up afterwards
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head[9:12]), head.decode(), json.loads(body)


async def test_what_is_no_http_is_refused_in_our_form(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n",
            b"GARBAGE\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
        ):
            status, head, answer = await say(api, sent)
            assert status == 400, sent
            assert answer["code"] == "VALIDATION_ERROR"
            assert {"success", "error", "details", "message", "detail"} <= answer.keys()
            for name in (
                "X-Request-Id",
                "X-Content-Type-Options",
                "Content-Security-Policy",
                "X-RateLimit-Remaining",
            ):
                assert f"{name}: " in head
            assert "Server: snap" in head
        assert (await api.read("/health"))[0] == 200
    log = (tmp_path / "api.log").read_text()
    assert "Traceback" not in log
    assert log.count("unreadable request 400") == 7
    assert "ERROR" not in log


@pytest.mark.parametrize(
    ("header", "body", "wanted"),
    [
        ("Expect: the-unexpected", b'{"username": "x", "password": "y"}', 401),
        ("Content-Encoding: gzip", b"no gzip", 415),
        ("Content-Encoding: gzip", gzip.compress(b'{"username": "x", "password": "y"}'), 415),
    ],
    ids=["expect", "broken", "gzip"],
)
async def test_headers_that_nobody_knows_break_nothing(
    tmp_path: Path, header: str, body: bytes, wanted: int
) -> None:
    lines = [
        "POST /config/user/login HTTP/1.1",
        "Host: x",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        header,
    ]
    async with running(tmp_path / "data") as api:
        sent = "\r\n".join([*lines, "", ""]).encode() + body
        status, head, answer = await say(api, sent)
    assert (status, "X-Request-Id" in head) == (wanted, True)
    assert answer["success"] is False
    assert "Traceback" not in (tmp_path / "api.log").read_text()


async def test_figures_tell_of_jobs(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        place = await api.set_up()
        agent = FakeAgent(place, pods={("default", "app"): pod("app", "default")})
        async with agent.join():
            asked = asyncio.create_task(api.call("POST", "/checkpoint/kubelet/checkpoint", BODY))
            await until(lambda: bool(agent.journal))
            assert 'snap_jobs_open{state="queued"} 1' in await figures(api)
            assert "snap_agents_connected 1" in await figures(api)
            (job_id,) = agent.journal
            await agent.complete(job_id)
            await asked
        text = await figures(api)
        assert 'snap_jobs_total{kind="checkpoint",state="completed"} 1' in text
        assert 'snap_jobs_open{state="queued"} 0' in text
        assert 'snap_job_seconds_count{kind="checkpoint",state="completed"} 1' in text
        assert "snap_checkpoint_pause_seconds_count 1" in text
        assert "snap_checkpoint_pause_seconds_sum 0.67" in text
        assert "snap_checkpoint_size_bytes_count 1" in text
        await api.call("GET", "/checkpoint/unknown", status=404)
        text = await figures(api)
        assert 'snap_http_errors_total{code="CHECKPOINT_NOT_FOUND"} 1' in text
        assert re.search(r'snap_http_requests_total\{.*status="404"\} 1', text)


async def figures(api: ApiProcess) -> str:
    return re.sub(r"(\d)\.0$", r"\1", (await api.read("/metrics"))[2].decode(), flags=re.MULTILINE)


async def test_ready_tells_of_store_and_listeners(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        answer = await api.call("GET", "/ready")
        assert {check["name"]: check["ok"] for check in answer["checks"]} == {
            "store": True,
            "agents": True,
            "rest": True,
        }


@pytest.mark.parametrize("level", ["error", "debug"])
async def test_the_log_level_is_read_again_at_sighup(tmp_path: Path, level: str) -> None:
    chosen = tmp_path / "level"
    chosen.write_text("info\n")
    async with running(tmp_path / "data", SNAP_LOG_LEVEL_FILE=str(chosen)) as api:
        log = tmp_path / "api.log"
        chosen.write_text(f"{level}\n")
        api.hang_up()

        async def is_read() -> bool:
            marker = f"/checkpoint/mark-{len(log.read_text())}"
            await api.call("GET", marker, status=404)
            await api.call("GET", "/jobs")
            text = log.read_text()
            return (marker not in text) if level == "error" else ("GET /jobs 200" in text)

        await until(is_read)
