"""Uploaded archives over the link: from where the agent is, over whatever session is open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent import errors
from agent.link.uploads import Uploads
from snap_protos.snap.v1 import link_pb2 as pb
from tests.contract.test_agent_link import ARCHIVE, linked
from tests.fakes import tls
from tests.fakes.control_plane import FakeControlPlane, served
from tests.fakes.jobs import until


@pytest.fixture(scope="module")
def certificates() -> tls.Certificates:
    return tls.make()


async def _read(uploads: Uploads, transfer_id: str, offset: int = 0) -> bytes:
    return b"".join([piece async for piece in uploads.archive(transfer_id, offset)])


async def test_an_upload_is_read_from_any_place(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    plane, uploads = FakeControlPlane(), Uploads()
    plane.uploads["J1"] = ARCHIVE
    with pytest.raises(errors.Retryable):
        await _read(uploads, "J1")
    async with served(plane, certificates) as server, linked(tmp_path, server) as it:
        uploads.attach(it.session)
        await until(lambda: it.session.is_up)
        assert await _read(uploads, "J1") == ARCHIVE
        assert await _read(uploads, "J1", 5001) == ARCHIVE[5001:]
        with pytest.raises(errors.NotFound, match="does not give out"):
            await _read(uploads, "J2")


async def test_a_session_that_ends_can_be_followed_by_another(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    plane, uploads = FakeControlPlane(), Uploads()
    plane.uploads["J1"], plane.stuck_at = ARCHIVE, 4000
    async with served(plane, certificates) as server, linked(tmp_path, server) as it:
        uploads.attach(it.session)
        await until(lambda: it.session.is_up)
        got = b""

        async def read() -> None:
            nonlocal got
            async for piece in uploads.archive("J1", 0):
                got += piece

        reading = asyncio.create_task(read())
        await until(lambda: len(got) == 4000)
        await plane.hang_up()
        with pytest.raises(errors.Retryable):
            await reading
        plane.stuck_at = None
        await until(lambda: plane.sessions == 2 and it.session.is_up)
        assert got + await _read(uploads, "J1", len(got)) == ARCHIVE


async def test_an_image_of_the_cache_is_sent_as_an_archive(
    tmp_path: Path, certificates: tls.Certificates
) -> None:
    plane = FakeControlPlane()
    async with served(plane, certificates) as server, linked(tmp_path, server) as it:
        await until(lambda: it.session.is_up)
        it.archives.contents["sha256:1"] = ARCHIVE
        for transfer, digest in (("here", "sha256:1"), ("gone", "sha256:2")):
            asked = pb.OpenArchive(transfer_id=transfer, image_digest=digest, offset=10)
            await plane.send(pb.ControlFrame(open_archive=asked))
        await until(lambda: "here" in plane.archives and "gone" in plane.refused_archives)
        assert plane.archives["here"] == ARCHIVE[10:]
        assert plane.refused_archives["gone"].code.endswith("NOT_FOUND")
