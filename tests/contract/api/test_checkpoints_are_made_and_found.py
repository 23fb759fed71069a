"""Checkpoints, jobs and pushes over HTTP, in both dialects; the nodes are a fake that obeys at once."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from controlplane.store.records import JobFailure
from tests.fakes.api_server import Server
from tests.fakes.fleet import DIGEST

S_BODY = {
    "pod_name": "test-app",
    "namespace": "default",
    "node_name": "node-1",
    "container_name": "test-app",
    "cluster_name": "c1",
}
O_BODY = {
    "pod_name": "test-app",
    "namespace": "default",
    "node_name": "node-1",
    "container_name": "test-app",
    "kube_api_address": "https://api.example:6443",
}
SHORT_BODY = {"pod_name": "test-app", "namespace": "default"}


async def _made(server: Server) -> dict[str, str]:
    answer = await server.call("POST", "/checkpoint/kubelet/checkpoint", S_BODY, by="olga")
    assert answer.status == 200, answer.json
    made: dict[str, str] = answer.json
    return made


@pytest.mark.parametrize("body", [S_BODY, O_BODY, SHORT_BODY], ids=["S", "O", "short"])
async def test_a_checkpoint_answers_as_the_reference_shows(
    server: Server, body: dict[str, str]
) -> None:
    answer = await server.call("POST", "/checkpoint/kubelet/checkpoint", body, by="olga")
    assert answer.status == 200, answer.json
    made = answer.json
    assert made["success"] is True
    assert made["pod_id"] == "pod-12345"
    assert made["container_ids"] == ["container-67890"]
    assert made["checkpoint_path"] == f"/app/checkpoints/test-app-{made['checkpoint_id']}.tar"
    assert made["message"] == "Checkpoint created successfully"
    assert (made["engine"], made["pause_ms"], made["size_bytes"]) == ("runc", 120.5, 150_000_000)
    listed = (await server.call("GET", "/checkpoint/list", by="vera")).json["checkpoints"]
    assert [(c["id"], c["status"], c["size"]) for c in listed] == [
        (made["checkpoint_id"], "completed", "150MB")
    ]
    assert {"checkpoint_name", "analysis_result", "scan_result"} <= listed[0].keys()


async def test_a_checkpoint_says_how_its_memory_comes_back(server: Server) -> None:
    path = "/checkpoint/kubelet/checkpoint-and-push"
    wanted = S_BODY | {"registry": "r1", "restore": "auto"}
    made = await server.call("POST", path, wanted, by="olga")
    assert made.status == 200, made.json
    shown = await server.call("GET", f"/checkpoint/{made.json['checkpoint_id']}", by="vera")
    assert shown.json["restore"] == "auto"
    assert await _granted(server) == [{"restore": "auto", "namespaces": ["default"]}]
    share = f"/checkpoint/{made.json['checkpoint_id']}/share"
    shared = await server.call("POST", share, {"namespaces": ["shop"]}, by="admin")
    assert shared.status == 200, shared.json
    assert await _granted(server) == [{"restore": "auto", "namespaces": ["default", "shop"]}]
    answer = await server.call("POST", path, wanted | {"restore": "later"}, by="olga")
    assert (answer.status, answer.json["code"]) == (400, "VALIDATION_ERROR")


async def test_a_checkpoint_that_does_not_say_grants_nothing_about_it(server: Server) -> None:
    wanted = S_BODY | {"registry": "r1"}
    made = await server.call("POST", "/checkpoint/kubelet/checkpoint-and-push", wanted, by="olga")
    shown = await server.call("GET", f"/checkpoint/{made.json['checkpoint_id']}", by="vera")
    assert shown.json["restore"] is None
    assert await _granted(server) == [{"restore": None, "namespaces": ["default"]}]


async def _granted(server: Server) -> list[dict[str, object]]:
    """What the grants say, as the nodes get them."""
    rows = await server.store.read(lambda db: db.execute("SELECT payload FROM grants").fetchall())
    said = [json.loads(row[0]) for row in rows]
    return [{"restore": one.get("restore"), "namespaces": one["namespaces"]} for one in said]


async def test_a_checkpoint_that_is_not_waited_for_gives_its_job(server: Server) -> None:
    server.fleet.held = True
    for path in ("?wait=false", ""):
        body = S_BODY if path else S_BODY | {"wait": False}
        answer = await server.call("POST", f"/checkpoint/kubelet/checkpoint{path}", body)
        assert answer.status == 202
        assert answer.json["success"] is True
        job = await server.call("GET", f"/jobs/{answer.json['job_id']}")
        assert job.json["status"] in ("queued", "running")
    cancelled = await server.call("POST", f"/jobs/{answer.json['job_id']}/cancel")
    assert cancelled.json["cancel_requested"] is True


async def test_who_waits_gets_202_when_the_server_stops(server: Server) -> None:
    server.fleet.held = True
    waiting = asyncio.create_task(
        server.call("POST", "/checkpoint/kubelet/checkpoint", S_BODY, by="olga")
    )
    async with asyncio.timeout(5):
        await server.fleet.busy.wait()
    server.services.jobs.close()
    answer = await waiting
    assert answer.status == 202
    assert answer.json["job_id"] == server.fleet.started[0].id


async def test_a_repeated_key_gives_the_first_job(server: Server) -> None:
    key = {"Idempotency-Key": "once"}
    path = "/checkpoint/kubelet/checkpoint"
    first = await server.call("POST", path, S_BODY, by="olga", headers=key)
    again = await server.call("POST", path, S_BODY, by="olga", headers=key)
    other_body = await server.call("POST", path, SHORT_BODY, by="olga", headers=key)
    other_user = await server.call("POST", path, S_BODY, by="oskar", headers=key)
    assert first.json["job_id"] == again.json["job_id"]
    assert len({a.json["job_id"] for a in (first, other_body, other_user)}) == 3


async def test_a_key_that_is_none_is_refused(server: Server) -> None:
    for key in ("k" * 256, "sch\N{LATIN SMALL LETTER O WITH DIAERESIS}n", "a\tb"):
        answer = await server.call(
            "POST",
            "/checkpoint/kubelet/checkpoint",
            S_BODY,
            by="olga",
            headers={"Idempotency-Key": key},
        )
        assert (answer.status, answer.json["code"]) == (400, "VALIDATION_ERROR"), key
        assert "`Idempotency-Key`" in answer.json["error"]
    assert not server.fleet.started


async def test_a_failed_job_answers_with_its_own_code_and_cause(server: Server) -> None:
    server.fleet.failure = JobFailure(
        code="CHECKPOINT_FAILED", message="CRIU could not dump.", details="Error (criu/sk-inet.c)"
    )
    answer = await server.call("POST", "/checkpoint/kubelet/checkpoint", S_BODY)
    assert answer.status == 502
    assert answer.json == {
        "success": False,
        "error": "CRIU could not dump.",
        "details": "Error (criu/sk-inet.c)",
        "code": "CHECKPOINT_FAILED",
        "message": "CRIU could not dump.",
        "detail": "CRIU could not dump.",
    }


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"pod_name": "nope"}, 404, "POD_NOT_FOUND"),
        ({"namespace": "other"}, 404, "POD_NOT_FOUND"),
        ({"node_name": "nope"}, 404, "NODE_NOT_FOUND"),
        ({"container_name": "nope"}, 404, "CONTAINER_NOT_FOUND"),
        ({"cluster_name": "nope"}, 404, "CLUSTER_NOT_FOUND"),
        ({"cluster_name": None, "kube_api_address": "https://x"}, 404, "CLUSTER_NOT_FOUND"),
        ({"engine": "magic"}, 400, "VALIDATION_ERROR"),
        ({"timeout_s": 0}, 400, "VALIDATION_ERROR"),
        ({"leave_running": "yes"}, 400, "VALIDATION_ERROR"),
    ],
    ids=str,
)
async def test_what_is_not_there_is_said(
    server: Server, change: dict[str, object], status: int, code: str
) -> None:
    answer = await server.call("POST", "/checkpoint/kubelet/checkpoint", S_BODY | change)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert (await server.call("GET", "/checkpoint/list")).json["checkpoints"] == []


async def test_an_agent_that_is_away_is_said_at_once(server: Server) -> None:
    server.fleet.connected = False
    answer = await server.call("POST", "/checkpoint/kubelet/checkpoint", S_BODY)
    assert (answer.status, answer.json["code"]) == (503, "AGENT_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await server.call("GET", "/jobs")).json["jobs"] == []


@pytest.mark.parametrize("by_query", [True, False], ids=["S", "body only"])
async def test_checkpoint_and_push_gives_the_image(server: Server, by_query: bool) -> None:
    path = "/checkpoint/kubelet/checkpoint-and-push"
    body = {"namespace": "default", "cluster": "c1", "registry": "r1"}
    body |= {"image_name": "test-app-checkpoint", "tag": "latest"}
    if by_query:
        path += "?pod_name=test-app&node_name=node-1&container_name=test-app"
        path += "&checkpoint_config_name=default"
    else:
        body["pod_name"] = "test-app"
    answer = await server.call("POST", path, body, by="olga")
    assert answer.status == 200, answer.json
    image = answer.json["image"]
    assert image.startswith("registry.example:5000/")
    assert image.endswith("test-app-checkpoint:latest")
    assert answer.json["image_tag"] == image
    assert answer.json["image_digest"] == DIGEST
    assert answer.json["push_result"]["image_tag"] == image
    assert answer.json["container_ids"] == ["container-67890"]


async def test_a_checkpoint_that_exists_is_pushed_by_any_of_its_names(server: Server) -> None:
    made = await _made(server)
    for name in (
        made["checkpoint_id"],
        made["filename"],
        made["filename"].removesuffix(".tar"),
        "test-app-checkpoint",
    ):
        body = {"checkpoint_name": name, "username": "admin", "pod_name": "test-app"}
        body["checkpoint_config_name"] = "default"
        path = "/registry/create_and_push_checkpoint_container"
        answer = await server.call("POST", path, body, by="olga")
        assert answer.status == 200, (name, answer.json)
        assert answer.json["message"] == "Checkpoint image successfully committed and pushed"
        assert answer.json["image_digest"] == DIGEST
    unknown = await server.call("POST", path, body | {"checkpoint_name": "nope"})
    assert (unknown.status, unknown.json["code"]) == (404, "CHECKPOINT_NOT_FOUND")
    wrong = await server.call("POST", path, body | {"checkpoint_config_name": "nope"})
    assert (wrong.status, wrong.json["code"]) == (404, "REGISTRY_NOT_FOUND")


async def test_a_checkpoint_is_pinned_shared_and_deleted(server: Server) -> None:
    made = await _made(server)
    one = f"/checkpoint/{made['checkpoint_id']}"
    assert (await server.call("GET", one, by="vera")).json["pinned"] is False
    assert (await server.call("POST", f"{one}/pin", by="olga")).json["pinned"] is True
    assert (await server.call("DELETE", one, by="olga")).status == 409
    assert (await server.call("POST", f"{one}/pin", {"pinned": False})).json["pinned"] is False
    unpushed = await server.call("POST", f"{one}/share", {"namespaces": ["prod"]})
    assert unpushed.status == 409
    deleted = await server.call("DELETE", one, by="olga")
    assert deleted.status == 200, deleted.json
    assert (await server.call("GET", "/checkpoint/list")).json["checkpoints"] == []


async def test_pages_follow_each_other(server: Server) -> None:
    ids = [(await _made(server))["checkpoint_id"] for _ in range(5)]
    seen, cursor = [], ""
    while True:
        page = (await server.call("GET", f"/checkpoint/list?limit=2{cursor}")).json
        seen += [c["id"] for c in page["checkpoints"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


@pytest.mark.parametrize("path", ["/checkpoint/list", "/jobs"])
@pytest.mark.parametrize("made_up", ["nonsense", "0", "01JC3WZ6Q4X9T2V7M8N0P5R1S", "I" * 26])
async def test_a_made_up_cursor_is_refused(server: Server, path: str, made_up: str) -> None:
    refused = await server.call("GET", f"{path}?cursor={made_up}")
    assert (refused.status, refused.json["code"]) == (400, "VALIDATION_ERROR")
    assert refused.json["error"] == "Field `cursor` must be the next_cursor of an answer."


async def test_pages_of_jobs_follow_each_other(server: Server) -> None:
    jobs = [(await _made(server))["job_id"] for _ in range(3)]
    first = (await server.call("GET", "/jobs?limit=2")).json
    rest = (await server.call("GET", f"/jobs?limit=2&cursor={first['next_cursor']}")).json
    assert [job["job_id"] for page in (first, rest) for job in page["jobs"]] == jobs[::-1]


async def test_jobs_of_others_are_not_seen(server: Server) -> None:
    job = (await _made(server))["job_id"]
    assert (await server.call("GET", f"/jobs/{job}", by="olga")).status == 200
    assert (await server.call("GET", f"/jobs/{job}", by="admin")).status == 200
    for method, path in (("GET", f"/jobs/{job}"), ("POST", f"/jobs/{job}/cancel")):
        answer = await server.call(method, path, by="oskar")
        assert (answer.status, answer.json["code"]) == (404, "JOB_NOT_FOUND")
    assert (await server.call("GET", "/jobs", by="oskar")).json["jobs"] == []


async def test_an_archive_is_downloaded_whole_or_in_part(server: Server) -> None:
    made = await _made(server)
    content = server.fleet.archive
    paths = (
        f"/checkpoint/download/test-app/{made['filename']}",
        f"/checkpoint/download/test-app?filename={made['filename']}",
    )
    for path in paths:
        whole = await server.call("GET", path, by="olga")
        assert (whole.status, whole.content) == (200, content)
        assert whole.headers["Content-Length"] == str(len(content))
        assert made["filename"] in whole.headers["Content-Disposition"]
        etag = whole.headers["ETag"]
        head = await server.call("HEAD", path, by="olga")
        assert (head.status, head.headers["ETag"]) == (200, etag)
        assert head.headers["Content-Length"] == str(len(content))
        part = await server.call("GET", path, headers={"Range": "bytes=5000-"})
        assert (part.status, part.content) == (206, content[5000:])
        total = len(content)
        assert part.headers["Content-Range"] == f"bytes 5000-{total - 1}/{total}"
        resumed = {"range": "bytes=10-19", "If-Range": etag}
        assert (await server.call("GET", path, headers=resumed)).content == content[10:20]
        changed = {"Range": "bytes=10-19", "If-Range": '"other"'}
        assert (await server.call("GET", path, headers=changed)).status == 200
        same = await server.call("GET", path, headers={"If-None-Match": etag})
        assert (same.status, same.content) == (304, b"")
        outside = await server.call("GET", path, headers={"Range": "bytes=999999-"})
        assert (outside.status, outside.json["code"]) == (416, "RANGE_NOT_SATISFIABLE")
        assert outside.headers["Content-Range"] == f"bytes */{total}"


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "nope.tar", "%00", "a%0ab", ".."])
async def test_a_file_name_is_looked_up_and_never_opened(server: Server, name: str) -> None:
    for path in (
        f"/checkpoint/download/test-app/{name}",
        f"/checkpoint/download/x?filename={name}",
    ):
        answer = await server.call("GET", path)
        assert answer.status in (400, 404), answer.content
        assert answer.json["success"] is False


async def test_a_download_that_breaks_off_is_seen_to_break_off(server: Server) -> None:
    made = await _made(server)
    server.fleet.break_after = 3000
    with pytest.raises(aiohttp.ClientError):
        await server.call("GET", f"/checkpoint/download/test-app/{made['filename']}")
