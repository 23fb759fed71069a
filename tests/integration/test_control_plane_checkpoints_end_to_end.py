"""Checkpoints through REST to a node and back: results, images, grants, archives, deletion."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.fakes.api_process import ApiProcess, running, until
from tests.fakes.node_agent import DIGEST, FakeAgent, pod

BODY = {"pod_name": "app", "namespace": "default"}
MIB = 1 << 20


async def agent_of(api: ApiProcess, *containers: str) -> FakeAgent:
    place = await api.set_up()
    return FakeAgent(place, pods={("default", "app"): pod("app", "default", *containers)})


async def test_a_checkpoint_is_made_listed_and_answered(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.obedient = True
        async with agent.join():
            answer = await api.call("POST", "/checkpoint/kubelet/checkpoint", BODY)
            assert answer["success"] is True
            assert answer["node_name"] == "node-1"
            assert answer["container_ids"] == ["id-app"]
            assert answer["engine"] == "runc"
            assert answer["pause_ms"] == 670.0
            (listed,) = (await api.call("GET", "/checkpoint/list"))["checkpoints"]
            assert listed["id"] == answer["checkpoint_id"]
            assert listed["filename"] == f"app-{answer['checkpoint_id']}.tar"
            assert listed["status"] == "completed"
            told = agent.journal[answer["job_id"]].start.checkpoint
            assert (told.pod_uid, told.leave_running) == ("uid-1", True)


async def test_a_push_names_its_image_by_the_scheme_and_is_granted(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.obedient = True
        other = FakeAgent(dataclasses.replace(agent.place, node="node-2"))
        async with agent.join(), other.join():
            answer = await api.call("POST", "/checkpoint/kubelet/checkpoint-and-push", BODY)
            image = "registry.test:5000/snap_images/dev-default-app:121212121212-5d9c"
            assert (answer["image"], answer["image_digest"]) == (image, DIGEST)
            push = agent.journal[answer["job_id"]].start.pushes[0]
            assert (push.registry.username, push.registry.password) == ("robot", "push-secret")
            await until(lambda: bool(other.grants))
        (grant,) = other.grants[0].grants
        key = Ed25519PublicKey.from_public_bytes(other.welcomes[0].grant_key)
        key.verify(grant.signature, grant.payload)
        content = json.loads(grant.payload)
        assert content["digest"] == DIGEST
        assert (content["cluster"], content["namespaces"]) == ("dev", ["default"])
        assert grant.payload == json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    database = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("snap.db*"))
    assert b"push-secret" not in database
    assert "push-secret" not in (tmp_path / "api.log").read_text()


async def test_all_containers_are_frozen_together_and_named_apart(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api, "web", "db")
        agent.obedient = True
        async with agent.join():
            refused = await api.call("POST", "/checkpoint/kubelet/checkpoint", BODY, 400)
            assert "db, web" in refused["error"]
            body = BODY | {"container_name": "*", "image_name": "mine", "tag": "v1"}
            answer = await api.call("POST", "/checkpoint/kubelet/checkpoint-and-push", body)
            start = agent.journal[answer["job_id"]].start
            assert [c.container_name for c in start.checkpoint.containers] == ["web", "db"]
            assert [p.tag for p in start.pushes] == ["v1-web", "v1-db"]


async def test_what_does_not_exist_is_told_by_its_code(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        path = "/checkpoint/kubelet/checkpoint"
        push = "/checkpoint/kubelet/checkpoint-and-push"
        exited = pod("done")
        exited.containers[0].state = "exited"
        agent.pods["default", "done"] = exited
        async with agent.join():
            for wrong, where, status, code in (
                ({"pod_name": "nope"}, path, 404, "POD_NOT_FOUND"),
                ({"namespace": "other"}, path, 404, "POD_NOT_FOUND"),
                ({"container_name": "nope"}, path, 404, "CONTAINER_NOT_FOUND"),
                ({"cluster_name": "nope"}, path, 404, "CLUSTER_NOT_FOUND"),
                ({"kube_api_address": "https://nope:6443"}, path, 404, "CLUSTER_NOT_FOUND"),
                ({"node_name": "nope"}, path, 404, "NODE_NOT_FOUND"),
                ({"registry": "nope"}, push, 404, "REGISTRY_NOT_FOUND"),
                ({"pod_name": "done"}, path, 422, "CHECKPOINT_REFUSED"),
            ):
                answer = await api.call("POST", where, BODY | wrong, status)
                assert answer["code"] == code
            assert (await api.call("GET", "/jobs"))["jobs"] == []
            by_address = BODY | {"kube_api_address": "api.test:6443"}
            await api.call("POST", path + "?wait=false", by_address, 202)


async def test_an_archive_is_streamed_with_ranges(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.obedient = True
        async with agent.join():
            made = await api.call("POST", "/checkpoint/kubelet/checkpoint", BODY)
            content = bytes(range(256)) * 4096 * 3
            agent.archives[made["checkpoint_id"]] = content
            url = f"/checkpoint/download/app/app-{made['checkpoint_id']}.tar"
            status, headers, body = await api.read(url)
            assert (status, body) == (200, content)
            assert headers["ETag"] == f'"{made["checkpoint_id"]}-1"'
            status, headers, body = await api.read(url, Range="bytes=1000000-1999999")
            assert (status, body) == (206, content[1_000_000:2_000_000])
            assert headers["Content-Range"] == f"bytes 1000000-1999999/{len(content)}"
            status, _, body = await api.read(url, Range="bytes=-5")
            assert (status, body) == (206, content[-5:])
            agent.archives.clear()
            await api.call("GET", url, status=404)
            await api.call("GET", url.replace("/app/", "/other/"), status=404)


async def test_a_slow_reader_holds_the_node_back(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.obedient = True
        async with agent.join():
            made = await api.call("POST", "/checkpoint/kubelet/checkpoint", BODY)
            agent.archives[made["checkpoint_id"]] = bytes(256 * MIB)
            url = f"/checkpoint/download/app/app-{made['checkpoint_id']}.tar"
            assert api._client is not None
            headers = {"Authorization": f"Bearer {api.token}"}
            async with api._client.get(url, headers=headers) as response:
                assert response.status == 200
                before = -1
                while agent.sent_bytes != before:  # until the pipe is full
                    before = agent.sent_bytes
                    await asyncio.sleep(0.3)
                assert agent.sent_bytes < 64 * MIB
                response.close()  # the reader hangs up: the node is told to stop
            await asyncio.sleep(0)
            assert agent.sent_bytes < 64 * MIB


async def test_an_archive_that_breaks_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.obedient = True
        assert api._client is not None
        async with agent.join():
            made = await api.call("POST", "/checkpoint/kubelet/checkpoint", BODY)
            agent.archives[made["checkpoint_id"]] = bytes(256 * MIB)
            url = f"/checkpoint/download/app/app-{made['checkpoint_id']}.tar"
            headers = {"Authorization": f"Bearer {api.token}"}
            response = await api._client.get(url, headers=headers)
            await response.content.readexactly(MIB)
        with pytest.raises(aiohttp.ClientPayloadError):  # the node is gone
            await response.read()
        response.close()

        async def is_away() -> (
            bool
        ):  # the end of the transfer may be seen before that of the session
            try:
                return (await api.send("GET", url))[0] == 503
            except aiohttp.ClientError:
                return False

        await until(is_away)
        away = await api.call("GET", url, status=503)
        assert away["code"] == "AGENT_UNAVAILABLE"


async def test_a_pod_is_found_on_whichever_node_has_it(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        first = FakeAgent(await api.set_up())
        second = FakeAgent(
            dataclasses.replace(first.place, node="node-2"),
            pods={("default", "app"): pod()},
            obedient=True,
        )
        moved = pod()
        moved.ready = False  # what is left of a pod that lives elsewhere now
        first.pods["default", "app"] = moved
        async with first.join(), second.join():
            answer = await api.call("POST", "/checkpoint/kubelet/checkpoint", BODY)
            assert answer["node_name"] == "node-2"
            assert first.journal == {}


async def test_a_name_that_two_nodes_have_is_not_guessed(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        first = FakeAgent(await api.set_up(), pods={("default", "app"): pod()})
        twin = pod()
        twin.pod_uid = "another-uid"
        second = FakeAgent(
            dataclasses.replace(first.place, node="node-2"),
            pods={("default", "app"): twin},
            obedient=True,
        )
        async with first.join(), second.join():
            answer = await api.call("POST", "/checkpoint/kubelet/checkpoint", BODY, status=400)
            assert "node_name" in answer["error"]
            assert first.journal == second.journal == {}


async def test_delete_removes_parts_and_grants_but_not_pinned_ones(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        agent.obedient = True
        async with agent.join():
            made = await api.call("POST", "/checkpoint/kubelet/checkpoint-and-push", BODY)
            url = f"/checkpoint/{made['checkpoint_id']}"
            await api.call("POST", f"{url}/pin", {"pinned": True})
            await api.call("DELETE", f"{url}?keep_image=true", status=409)
            await api.call("POST", f"{url}/pin", {"pinned": False})
            shared = {"namespaces": ["team-b"]}
            await api.call("POST", f"{url}/share", shared)
            await until(lambda: b"team-b" in agent.grants[-1].grants[0].payload)
            await api.call("DELETE", f"{url}?keep_image=true")
            await api.call("GET", url, status=404)
            await until(lambda: agent.grants[-1].replace and not agent.grants[-1].grants)
            assert (await api.call("GET", "/checkpoint/list"))["checkpoints"] == []


async def test_a_job_is_cancelled_when_its_node_says_so(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            path = "/checkpoint/kubelet/checkpoint?wait=false"
            job_id = (await api.call("POST", path, BODY, 202))["job_id"]
            await until(lambda: job_id in agent.journal)
            await api.call("POST", f"/jobs/{job_id}/cancel")
            await until(lambda: agent.cancels == [job_id])
            assert (await api.call("GET", f"/jobs/{job_id}"))["status"] == "queued"
            await agent.report(job_id, "cancelled")

            async def is_cancelled() -> bool:
                found = await api.call("GET", f"/jobs/{job_id}")
                return bool(found["status"] == "cancelled")

            await until(is_cancelled)
            await api.call("POST", f"/jobs/{job_id}/cancel", status=409)


async def test_progress_reaches_a_websocket(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as api:
        agent = await agent_of(api)
        async with agent.join():
            path = "/checkpoint/kubelet/checkpoint?wait=false"
            job_id = (await api.call("POST", path, BODY, 202))["job_id"]
            await until(lambda: job_id in agent.journal)
            assert api._client is not None
            headers = {"Authorization": f"Bearer {api.token}"}
            async with api._client.ws_connect("/ws/progress", headers=headers) as socket:
                first = await next_of(socket)
                assert (first["job_id"], first["progress"]) == (job_id, 0)
                count = {"bytes_done": 100, "bytes_total": 1000, "bytes_per_s": 100}
                await agent.report(job_id, "running", progress=30.0, message="dumping", **count)
                news = await next_of(socket)
                assert (news["type"], news["progress"]) == ("progress", 30.0)
                assert (news["bytes_per_s"], news["remaining_s"]) == (100, 9.0)
                assert news["event_id"] > first["event_id"]
                failure = {"code": "CHECKPOINT_FAILED", "message": "It did not work."}
                await agent.report(job_id, "failed", error=failure)
                last = await next_of(socket)
                assert (last["progress"], last["message"]) == ("failed", "It did not work.")


async def next_of(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    async with asyncio.timeout(60):
        found: dict[str, Any] = await socket.receive_json()
        return found
