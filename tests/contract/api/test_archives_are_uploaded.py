"""Uploads over HTTP: what comes whole and harmless is a checkpoint, of everything else nothing is left."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.checkpoints.uploads import UploadCommand
from controlplane.errors import Denied, NotFound
from controlplane.identity import Actor, Role
from controlplane.store.records import JobKind
from tests.fakes import api_server
from tests.fakes.api_server import Answer, Server
from tests.fakes.archives import archive, member
from tests.fakes.fleet import DIGEST

PATH = "/checkpoint/upload/test-app"
TAR = archive()


def _form(content: bytes, name: str = "file") -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("note", "from the old node")
    form.add_field(name, content, filename="checkpoint-x.tar", content_type="application/x-tar")
    return form


async def _upload(server: Server, content: bytes = TAR, path: str = PATH, by: str = "olga") -> Any:
    headers = {"Authorization": f"Bearer {server.tokens[by]}"}
    url = server.url + path
    async with server.session.post(url, data=_form(content), headers=headers) as answer:
        return Answer(answer.status, answer.headers, b"", await answer.json())


def _files(server: Server) -> list[Path]:
    return list((server.services.settings.data_dir / "uploads").iterdir())


async def test_an_uploaded_archive_is_a_checkpoint(server: Server) -> None:
    answer = await _upload(server)
    assert answer.status == 200, answer.json
    made = answer.json
    assert made["success"] is True
    assert made["filename"] == f"test-app-{made['checkpoint_id']}.tar"
    assert made["saved_path"] == made["checkpoint_path"]
    assert (made["pod_name"], made["namespace"], made["container_name"]) == (
        "test-app",
        "shop",
        "app",
    )
    assert (made["status"], made["place"], made["on_node"]) == ("completed", "uploaded", False)
    assert made["size_bytes"] == len(TAR)
    assert made["sha256"] == hashlib.sha256(TAR).hexdigest()
    listed = (await server.call("GET", "/checkpoint/list", by="vera")).json["checkpoints"]
    assert [one["id"] for one in listed] == [made["id"]]


async def test_it_is_downloaded_whole_and_in_parts(server: Server) -> None:
    made = (await _upload(server)).json
    path = f"/checkpoint/download/test-app/{made['filename']}"
    server.fleet.connected = False  # no node has any part in it
    whole = await server.call("GET", path, by="olga")
    assert (whole.status, whole.content) == (200, TAR)
    etag = whole.headers["ETag"]
    assert etag == f'"{made["sha256"]}"'
    part = await server.call("GET", path, by="olga", headers={"Range": "bytes=1000-1999"})
    assert (part.status, part.content) == (206, TAR[1000:2000])
    tail = {"Range": "bytes=700-", "If-Range": etag}
    assert (await server.call("GET", path, by="olga", headers=tail)).content == TAR[700:]
    beyond = await server.call("GET", path, by="olga", headers={"Range": f"bytes={len(TAR)}-"})
    assert beyond.status == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(TAR)}"
    head = await server.call("HEAD", path, by="olga")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(TAR)))
    same = await server.call("GET", path, by="olga", headers={"If-None-Match": etag})
    assert same.status == 304
    assert (await server.call("GET", path, by="vera")).status == 403


async def test_a_compressed_archive_is_kept_plain(server: Server) -> None:
    made = (await _upload(server, gzip.compress(TAR))).json
    assert made["sha256"] == hashlib.sha256(TAR).hexdigest()
    answer = await server.call("GET", f"/checkpoint/download/test-app/{made['id']}", by="olga")
    assert answer.content == TAR


async def test_what_is_uploaded_can_be_deleted(server: Server) -> None:
    made = (await _upload(server)).json
    server.fleet.connected = False
    assert (await server.call("DELETE", f"/checkpoint/{made['id']}", by="olga")).status == 200
    assert _files(server) == []
    gone = await server.call("GET", f"/checkpoint/{made['id']}", by="olga")
    assert gone.json["code"] == "CHECKPOINT_NOT_FOUND"


async def test_what_is_uploaded_lies_on_no_node_that_could_look_into_it(server: Server) -> None:
    made = (await _upload(server)).json
    body = {"checkpoint_path": made["id"], "analysis_type": "files"}
    answer = await server.call("POST", "/checkpoint/insights", body, by="olga")
    assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    assert "uploaded" in answer.json["error"]


async def test_its_image_may_be_restored_nowhere_until_it_is_shared(server: Server) -> None:
    made = (await _upload(server, path=f"{PATH}?cluster_name=c1")).json
    body = {"checkpoint_name": made["filename"], "checkpoint_config_name": "r1"}
    path = "/registry/create_and_push_checkpoint_container"
    pushed = await server.call("POST", path, body, by="olga")
    assert pushed.status == 200, pushed.json
    assert pushed.json["image_digest"] == DIGEST
    job = server.fleet.started[-1]
    assert job.kind is JobKind.IMPORT
    assert job.spec.import_ is not None
    assert job.spec.import_.transfer_id == job.id
    rows = "SELECT namespaces_json FROM grants"
    granted = await server.store.read(lambda db: db.execute(rows).fetchall())
    assert granted == []
    share = f"/checkpoint/{made['id']}/share"
    assert (await server.call("POST", share, {"namespaces": ["shop"]}, by="olga")).status == 403
    assert (await server.call("POST", share, {"namespaces": ["shop"]})).status == 200
    granted = await server.store.read(lambda db: db.execute(rows).fetchall())
    assert granted == [('["shop"]',)]


async def test_only_the_jobs_cluster_gets_the_archive_and_only_while_it_runs(
    server: Server,
) -> None:
    made = (await _upload(server, path=f"{PATH}?cluster_name=c1")).json
    server.fleet.held = True
    body = {"checkpoint_name": made["id"], "checkpoint_config_name": "r1"}
    path = "/registry/create_and_push_checkpoint_container?wait=false"
    job_id = (await server.call("POST", path, body, by="olga")).json["job_id"]
    uploads = server.services.uploads
    size, pieces = await uploads.fetch(job_id, "c1", 100)
    assert size == len(TAR)
    assert b"".join([piece async for piece in pieces]) == TAR[100:]
    for wrong, cluster in ((job_id, "other"), (made["id"], "c1"), ("../../x", "c1")):
        with pytest.raises(NotFound, match="no such upload"):
            await uploads.fetch(wrong, cluster, 0)
    await server.call("POST", f"/jobs/{job_id}/cancel", by="olga")
    await server.services.jobs.wait(job_id, 5)
    with pytest.raises(NotFound, match="no such upload"):
        await uploads.fetch(job_id, "c1", 0)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (archive(member("../x", b"y")), 400, "no safe name"),
        (archive(without=["spec.dump"]), 400, "spec.dump"),
        (gzip.compress(archive(member("../x", b"y"))), 400, "no safe name"),
        (gzip.compress(TAR)[:-30], 400, "breaks off"),
        (b"", 400, "empty"),
    ],
    ids=["hostile", "no checkpoint", "hostile and packed", "broken off", "empty"],
)
async def test_of_what_is_refused_nothing_is_left(
    server: Server, content: bytes, status: int, words: str
) -> None:
    answer = await _upload(server, content)
    assert (answer.status, words in answer.json["error"]) == (status, True), answer.json
    assert _files(server) == []
    assert (await server.call("GET", "/checkpoint/list", by="olga")).json["checkpoints"] == []


def _without_file(form: aiohttp.FormData) -> aiohttp.FormData:
    form.add_field("files", b"x", filename="x")
    return form


def _twice(form: aiohttp.FormData) -> aiohttp.FormData:
    form.add_field("file", TAR, filename="x")
    form.add_field("file", TAR, filename="x")
    return form


@pytest.mark.parametrize("fill", [_without_file, _twice])
async def test_there_is_one_file(
    server: Server, fill: Callable[[aiohttp.FormData], aiohttp.FormData]
) -> None:
    headers = {"Authorization": f"Bearer {server.tokens['olga']}"}
    form = fill(aiohttp.FormData())
    async with server.session.post(server.url + PATH, data=form, headers=headers) as answer:
        assert answer.status == 400
        assert "`file`" in (await answer.json())["error"]
    assert _files(server) == []


async def test_what_is_no_form_is_refused(server: Server) -> None:
    assert (await server.call("POST", PATH, {"file": "x"}, by="olga")).status == 415
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for raw in (
        b"no parts",
        b"",
        b"--x\r\n\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nx",
    ):
        answer = await server.call("POST", PATH, raw=raw, by="olga", headers=kind)
        assert answer.status == 400, raw
    no_boundary = {"Content-Type": "multipart/form-data"}
    assert (await server.call("POST", PATH, raw=b"x", headers=no_boundary)).status == 400
    assert _files(server) == []


async def test_what_is_too_large_is_refused(tmp_path: Path) -> None:
    async with api_server.running(tmp_path, upload_max_bytes=len(TAR) - 1) as server:
        answer = await _upload(server)
        assert (answer.status, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
        packed = await _upload(server, gzip.compress(TAR))
        assert packed.status == 413
        assert _files(server) == []


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    async with api_server.running(tmp_path, upload_free_bytes=1 << 60) as server:
        answer = await _upload(server)
        assert (answer.status, answer.json["code"]) == (507, "INSUFFICIENT_STORAGE")
        assert _files(server) == []


async def test_a_client_that_hangs_up_leaves_nothing(server: Server) -> None:
    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield TAR[:8192] * 300  # more than is collected before it is written
        sent.set()
        await asyncio.Event().wait()

    headers = {
        "Authorization": f"Bearer {server.tokens['olga']}",
        "Content-Type": "multipart/form-data; boundary=x",
    }

    async def post() -> None:
        async with server.session.post(server.url + PATH, data=body(), headers=headers):
            pass

    client = asyncio.create_task(post())
    await sent.wait()
    await _until(lambda: bool(_files(server)))
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    await _until(lambda: not _files(server))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a folder tells nobody that it changed
            await asyncio.sleep(0.01)


async def test_an_operator_uploads_for_own_namespaces_only(server: Server) -> None:
    assert (await _upload(server, by="vera")).status == 403
    nina = Actor("nina", Role.OPERATOR, ("other",))
    uploads = server.services.uploads
    async with uploads.receiving(UploadCommand("test-app"), nina) as upload:
        await upload.write(TAR)
        with pytest.raises(Denied, match="namespace shop"):
            await upload.finish(nina)
    with pytest.raises(Denied):
        async with uploads.receiving(UploadCommand("test-app", "shop"), nina):
            pass
    unknown = await _upload(server, path=f"{PATH}?cluster_name=nowhere")
    assert (unknown.status, unknown.json["code"]) == (404, "CLUSTER_NOT_FOUND")
    assert _files(server) == []
