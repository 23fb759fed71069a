"""The WebSocket: who may open it, what comes first, who sees what."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.fakes.api_server import Server

BODY = {"pod_name": "test-app", "namespace": "default"}


async def _next(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    async with asyncio.timeout(5):
        message: dict[str, Any] = await socket.receive_json()
        return message


def _bearer(server: Server, user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.tokens[user]}"}


async def test_a_job_is_followed_to_its_end(server: Server) -> None:
    url = f"{server.url}/ws/progress"
    async with server.session.ws_connect(url, headers=_bearer(server, "olga")) as socket:
        await server.call("POST", "/checkpoint/kubelet/checkpoint", BODY, by="olga")
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["progress"] != 100:
            messages.append(await _next(socket))
    fields = {"type", "progress", "task_name", "message", "timestamp", "job_id", "cluster"}
    assert all(fields <= message.keys() for message in messages)
    assert {message["type"] for message in messages} == {"progress"}


async def test_rate_and_remaining_seconds_are_told_to_both_kinds_of_readers(
    server: Server,
) -> None:
    server.fleet.held = True
    made = await server.call("POST", "/checkpoint/kubelet/checkpoint?wait=false", BODY, by="olga")
    job_id = made.json["job_id"]
    url = f"{server.url}/ws/progress"
    async with server.session.ws_connect(url, headers=_bearer(server, "olga")) as socket:
        first = await _next(socket)
        assert (first["bytes_per_s"], first["remaining_s"]) == (None, None)
        count = {"bytes_done": 250, "bytes_total": 1000, "bytes_per_s": 500}
        await server.fleet.say(server.fleet.started[0], **count)
        told = await _next(socket)
    assert {name: told[name] for name in count} == count
    assert told["remaining_s"] == 1.5
    for path in (f"/jobs/{job_id}", "/jobs"):
        answer = (await server.call("GET", path, by="olga")).json
        job = answer["jobs"][0] if "jobs" in answer else answer
        assert {name: job[name] for name in (*count, "remaining_s")} == count | {"remaining_s": 1.5}


async def test_the_description_says_what_rate_and_remaining_seconds_are(server: Server) -> None:
    described = (await server.call("GET", "/openapi.json")).json
    job = described["components"]["schemas"]["JobAnswer"]
    for name, kind in (("bytes_per_s", "integer"), ("remaining_s", "number")):
        assert {"type": kind} in job["properties"][name]["anyOf"]
        assert "null while not known" in job["properties"][name]["description"]


async def test_the_latest_state_comes_first_and_since_resumes(server: Server) -> None:
    server.fleet.held = True
    made = await server.call("POST", "/checkpoint/kubelet/checkpoint?wait=false", BODY, by="olga")
    url = f"{server.url}/ws/progress/olga"
    for query in ("", "?since=0"):
        async with server.session.ws_connect(url + query, headers=_bearer(server, "olga")) as ws:
            assert (await _next(ws))["job_id"] == made.json["job_id"]


async def test_pings_are_answered_and_nonsense_is_not_fatal(server: Server) -> None:
    url = f"{server.url}/ws/progress"
    async with server.session.ws_connect(url, headers=_bearer(server, "vera")) as socket:
        for nonsense in ("no json", "[]", '{"type": 5}', "[" * 5000):
            await socket.send_str(nonsense)
        await socket.send_bytes(b"\x00")
        await socket.send_json({"type": "ping"})
        assert await _next(socket) == {"type": "pong"}


async def test_jobs_of_others_are_not_told(server: Server) -> None:
    url = f"{server.url}/ws/progress/olga"  # the token decides, not the name
    async with (
        server.session.ws_connect(url, headers=_bearer(server, "oskar")) as other,
        server.session.ws_connect(url, headers=_bearer(server, "admin")) as administrator,
    ):
        await server.call("POST", "/checkpoint/kubelet/checkpoint", BODY, by="olga")
        assert (await _next(administrator))["type"] == "progress"
        await other.send_json({"type": "ping"})
        assert await _next(other) == {"type": "pong"}


async def test_every_proof_opens_it(server: Server) -> None:
    url, token = f"{server.url}/ws/progress", server.tokens["vera"]
    async with server.session.ws_connect(url, protocols=[f"bearer.{token}"]) as socket:
        assert socket.protocol == f"bearer.{token}"
    own = {"Cookie": f"token={token}", "Origin": server.url}
    async with server.session.ws_connect(url, headers=own):
        pass
    ticket = (await server.call("POST", "/ws/ticket", by="vera")).json["ticket"]
    async with server.session.ws_connect(f"{url}?ticket={ticket}"):
        pass
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await server.session.ws_connect(f"{url}?ticket={ticket}")


@pytest.mark.parametrize("origin", ["https://evil.example", None])
async def test_a_cookie_from_another_page_does_not_open_it(
    server: Server, origin: str | None
) -> None:
    headers = {"Cookie": f"token={server.tokens['admin']}"}
    if origin is not None:
        headers["Origin"] = origin
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await server.session.ws_connect(f"{server.url}/ws/progress", headers=headers)


async def test_a_socket_ends_with_its_session(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.api.progress._SESSION_CHECK_S", 0.05)
    url = f"{server.url}/ws/progress"
    async with server.session.ws_connect(url, headers=_bearer(server, "vera")) as socket:
        await server.call("POST", "/config/user/logout", by="vera")
        async with asyncio.timeout(5):
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_a_plain_request_is_told_what_this_is(server: Server) -> None:
    answer = await server.call("GET", "/ws/progress")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


async def test_a_client_that_offers_compression_reads_plain_messages(server: Server) -> None:
    url = f"{server.url}/ws/progress"
    headers = _bearer(server, "olga")
    async with server.session.ws_connect(url, headers=headers, compress=15) as socket:
        for _ in range(3):
            made = await server.call("POST", "/checkpoint/kubelet/checkpoint", BODY, by="olga")
            while (news := await _next(socket))["job_id"] != made.json["job_id"]:
                assert news["type"] == "progress"
        await socket.send_json({"type": "ping"})
        while (await _next(socket))["type"] != "pong":
            pass
