"""Push and fetch against a real registry: what comes back, and what happens when it goes away."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.errors import (
    INSUFFICIENT_STORAGE,
    REGISTRY_CONNECTION_FAILED,
    NotFound,
    Refused,
    Retryable,
)
from agent.formats import digest, record
from agent.formats.digest import Digest
from agent.formats.jobs import CheckpointId, Progress, PushResult, PushSpec, RegistryAccess
from agent.image import manifest
from agent.image.backoff import Backoff
from agent.image.cache import Cache, CacheLimits
from agent.image.push import Pusher
from agent.image.registry import Registry
from agent.image.writer import FileEntry, ImageConfig, ImageSource, push_image
from deploy.devnode import rootfs
from tests.fakes import criu_dump
from tests.integration.own_registry import OwnRegistry

MIB = 1 << 20
PATIENT = Backoff(tries=40, first_s=0.1, cap_s=1.0)
HASTY = Backoff(tries=2, first_s=0.05, cap_s=0.1)
REWRITTEN = frozenset({"snap.json", "checkpoint/pagemap-1.img", "checkpoint/pagemap-2.img",
                       "checkpoint/pagemap-3.img"})  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRegistry]:
    """Running; a test that kills it starts it again."""
    own = OwnRegistry(tmp_path_factory.mktemp("registry") / "r")
    own.start()
    yield own
    own.kill()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three processes in three windows, and shared memory."""
    folder = tmp_path_factory.mktemp("parts") / "p"
    return criu_dump.make_parts(folder, (70 * MIB, 3 * MIB, 16384), shared=5 * MIB)


def spec(access: RegistryAccess, repository: str, compression: str = "zstd") -> PushSpec:
    return PushSpec(CheckpointId("c"), access, repository, "t1", compression)


def silent(_: Progress) -> None:
    """Nobody listens."""


def name_of(access: RegistryAccess, repository: str, result: PushResult) -> str:
    return f"{access.host}/{repository}@{result.digest}"


@asynccontextmanager
async def cache_in(
    root: Path, limits: CacheLimits | None = None, backoff: Backoff = HASTY
) -> AsyncIterator[Cache]:
    cache = Cache(root, limits or CacheLimits(free_floor_bytes=0), backoff=backoff)
    await cache.open()
    try:
        yield cache
    finally:
        await cache.close()


def left_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path != cache / "windows"]


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
async def test_parts_come_back_as_they_were_and_push_to_the_same_digest(
    registry: OwnRegistry, parts: Path, tmp_path: Path, compression: str
) -> None:
    repository = f"back/{compression}"
    seen: list[Progress] = []
    wanted = spec(registry.access, repository, compression)
    pushed = await Pusher().push(parts, wanted, seen.append)
    assert seen[-1].percent == 100
    assert seen[-1].bytes_done == seen[-1].bytes_total
    async with cache_in(tmp_path / "cache") as cache:
        image = name_of(registry.access, repository, pushed)
        await cache.fetch(image, registry.access, silent)
        folder = await cache.flat(Digest(pushed.digest))
        criu_dump.same_tree(parts, folder, without=REWRITTEN)
        assert record.read(folder) == record.read(parts)
        again = await Pusher().push(folder, wanted, silent)
    assert again.digest == pushed.digest
    assert not registry.uploads


async def test_memory_that_does_not_shrink_is_stored_as_it_is(
    registry: OwnRegistry, tmp_path: Path
) -> None:
    dense = criu_dump.make_parts(tmp_path / "dense", (9 * MIB,), dense=True)
    pushed = await Pusher().push(dense, spec(registry.access, "dense"), silent)
    async with Registry.connect(registry.access) as client:
        body, _ = await client.manifest("dense", pushed.digest)
    assert body.count(b"layer.v1.tar+zstd") == 2
    assert body.count(b'layer.v1.tar"') == 1


async def test_skopeo_and_umoci_take_it(registry: OwnRegistry, parts: Path, tmp_path: Path) -> None:
    tools = rootfs.ready_parts(print)
    await Pusher().push(parts, spec(registry.access, "readers"), silent)
    certs = tmp_path / "certs"
    certs.mkdir()
    (certs / "ca.crt").write_text(registry.ca_pem)
    source = ["--src-creds", "snap:secret", "--src-cert-dir", str(certs)]
    run([*tools.tool("skopeo"), "--insecure-policy", "--tmpdir", str(tmp_path), "copy", *source,
         f"docker://{registry.host}/readers:t1", f"oci:{tmp_path}/oci:t1"])  # fmt: skip
    run([*tools.tool("umoci"), "raw", "unpack", "--image", f"{tmp_path}/oci:t1", f"{tmp_path}/u"])
    unpacked = tmp_path / "u"
    assert (unpacked / "rootfs-diff.tar").read_bytes() == (parts / "rootfs-diff.tar").read_bytes()
    assert pages_bytes(unpacked) == pages_bytes(parts)


def pages_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("pages-*.img"))


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_push_goes_on_after_the_registry_was_killed_in_the_middle(
    registry: OwnRegistry, parts: Path
) -> None:
    killed = threading.Event()

    def kill_once(progress: Progress) -> None:
        if progress.percent > 40 and not killed.is_set():
            killed.set()
            registry.kill_and_come_back(0.3)

    pushed = await Pusher(PATIENT).push(parts, spec(registry.access, "killed"), kill_once)
    registry.wait_back()
    assert killed.is_set()
    assert pushed.pushed_bytes > pushed.size_bytes  # something was sent twice
    async with Registry.connect(registry.access) as client:
        await client.manifest("killed", pushed.digest)


async def test_push_to_a_registry_that_stays_dead_fails_and_shows_nothing(
    registry: OwnRegistry, parts: Path
) -> None:
    def kill(progress: Progress) -> None:
        if progress.percent > 40:
            registry.kill()

    try:
        with pytest.raises(Retryable) as failed:
            await Pusher(HASTY).push(parts, spec(registry.access, "dead"), kill)
    finally:
        registry.start()
    assert failed.value.code == REGISTRY_CONNECTION_FAILED
    assert failed.value.details.startswith("unreachable:")
    assert not [tag for tag in registry.tags if "/dead/" in str(tag)]


async def test_cancelled_push_takes_its_uploads_back(registry: OwnRegistry, parts: Path) -> None:
    reached = asyncio.Event()

    def notice(progress: Progress) -> None:
        if progress.percent > 30:
            reached.set()

    push = asyncio.create_task(Pusher().push(parts, spec(registry.access, "stopped"), notice))
    await asyncio.wait_for(reached.wait(), 60)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    assert not [path for path in registry.uploads if "/stopped/" in str(path)]
    assert not [tag for tag in registry.tags if "/stopped/" in str(tag)]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"password": "wrong"}, "unauthorized:"),
        ({"username": "", "password": ""}, "unauthorized:"),
        ({"ca_pem": ""}, "certificate:"),
        ({"host": "127.0.0.1:1"}, "unreachable:"),
        ({"plain_http": True}, "unreachable:"),
    ],
    ids=["wrong-password", "no-login", "unknown-ca", "nobody-there", "no-tls"],
)
async def test_a_bad_way_to_the_registry_is_told_apart(
    registry: OwnRegistry, parts: Path, change: dict[str, str], word: str
) -> None:
    access = dataclasses.replace(registry.access, **change)  # type: ignore[arg-type]
    with pytest.raises((Refused, Retryable)) as failed:
        await Pusher(HASTY).push(parts, spec(access, "bad"), silent)
    assert failed.value.code == REGISTRY_CONNECTION_FAILED
    assert failed.value.details.startswith(word)
    assert "secret" not in repr(failed.value) + failed.value.details


async def test_unverified_tls_works_when_asked_for(registry: OwnRegistry, tmp_path: Path) -> None:
    access = dataclasses.replace(registry.access, ca_pem="", verify_ssl=False)
    small = criu_dump.make_parts(tmp_path / "p", (4096,))
    await Pusher(HASTY).push(small, spec(access, "unverified"), silent)


async def test_fetch_goes_on_after_the_registry_was_killed_in_the_middle(
    registry: OwnRegistry, parts: Path, tmp_path: Path
) -> None:
    pushed = await Pusher().push(parts, spec(registry.access, "killed2"), silent)
    killed = threading.Event()

    def kill_once(progress: Progress) -> None:
        if progress.percent > 40 and not killed.is_set():
            killed.set()
            registry.kill_and_come_back(0.3)

    async with cache_in(tmp_path / "cache", backoff=PATIENT) as cache:
        image = name_of(registry.access, "killed2", pushed)
        await cache.fetch(image, registry.access, kill_once)
        registry.wait_back()
        folder = await cache.flat(Digest(pushed.digest))
        criu_dump.same_tree(parts, folder, without=REWRITTEN)
    assert killed.is_set()


async def test_two_fetches_of_one_image_share_the_transfer(
    registry: OwnRegistry, parts: Path, tmp_path: Path
) -> None:
    pushed = await Pusher().push(parts, spec(registry.access, "shared"), silent)
    image = name_of(registry.access, "shared", pushed)
    first: list[Progress] = []
    second: list[Progress] = []
    async with cache_in(tmp_path / "cache") as cache:
        one, other = await asyncio.gather(
            cache.fetch(image, registry.access, first.append),
            cache.fetch(image, registry.access, second.append),
        )
        assert one == other
        assert first == second  # each heard of the same transfer
        assert len(first) > 1


async def test_fetch_outlives_its_caller_unless_told_otherwise(
    registry: OwnRegistry, parts: Path, tmp_path: Path
) -> None:
    pushed = await Pusher().push(parts, spec(registry.access, "left"), silent)
    image = name_of(registry.access, "left", pushed)
    async with cache_in(tmp_path / "cache") as cache:
        for goes_on in (False, True):
            begun = asyncio.Event()

            def notice(_: Progress, begun: asyncio.Event = begun) -> None:
                begun.set()

            task = asyncio.create_task(cache.fetch(image, registry.access, notice, goes_on=goes_on))
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if not goes_on:
                assert not left_in(tmp_path / "cache")
        await cache.fetch(image, registry.access, silent)
        assert cache.find(Digest(pushed.digest)) is not None


async def test_full_disk_while_fetching_is_told_and_leaves_nothing(
    registry: OwnRegistry, parts: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    pushed = await Pusher().push(parts, spec(registry.access, "full"), silent)
    image = name_of(registry.access, "full", pushed)
    small = tmp_path / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=160m", "none", str(small)])
    try:
        async with cache_in(small / "cache") as cache:

            def fill(progress: Progress) -> None:
                if progress.percent > 50:  # somebody else takes what was free
                    with (small / "hog").open("ab") as out:
                        out.truncate(0)
                        os.posix_fallocate(out.fileno(), 0, os.statvfs(small).f_bavail * 4096)

            with pytest.raises(Refused) as failed:
                await cache.fetch(image, registry.access, fill)
            assert failed.value.code == INSUFFICIENT_STORAGE
            assert left_in(small / "cache") == []
            (small / "hog").write_bytes(bytes(100 * MIB))
            with pytest.raises(Refused) as failed:  # seen before anything is fetched
                await cache.fetch(image, registry.access, silent)
            assert failed.value.code == INSUFFICIENT_STORAGE
    finally:
        run(["umount", str(small)])


async def test_longest_unused_images_make_room_but_held_ones_stay(
    registry: OwnRegistry, tmp_path: Path
) -> None:
    images = []
    for number in range(3):
        folder = criu_dump.make_parts(tmp_path / f"p{number}", (2 * MIB,), seed=number)
        pushed = await Pusher().push(folder, spec(registry.access, f"lru{number}"), silent)
        images.append(name_of(registry.access, f"lru{number}", pushed))
    digests = [digest.parse(image.partition("@")[2]) for image in images]
    limits = CacheLimits(
        size_bytes=75 * MIB, free_floor_bytes=0
    )  # one is reserved with 64 MiB more
    async with cache_in(tmp_path / "cache", limits) as cache:
        await cache.fetch(images[0], registry.access, silent)
        await cache.fetch(images[1], registry.access, silent)
        os.utime(tmp_path / "cache" / digests[1].removeprefix("sha256:"), (1, 1))
        tight = CacheLimits(size_bytes=70 * MIB, free_floor_bytes=0)
        async with cache_in(tmp_path / "cache", tight) as smaller:
            with smaller.hold(digests[0]):
                await smaller.fetch(images[2], registry.access, silent)
                assert smaller.find(digests[1]) is None
                assert smaller.find(digests[0]) is not None


async def test_image_by_others_in_one_gzip_layer_is_understood(
    registry: OwnRegistry, parts: Path, tmp_path: Path
) -> None:
    tar = tmp_path / "archive.tar"
    run(["tar", "-C", str(parts), "--exclude=./snap.json", "-cf", str(tar), "."])
    notes = {
        "org.criu.checkpoint.container.name": "theirs",
        "org.criu.checkpoint.rootfsImageName": "base",
    }
    image = ImageSource((tar,), ImageConfig(), annotations=notes)
    made = await push_image(registry.access, "theirs", "t1", image)
    async with cache_in(tmp_path / "cache") as cache:
        name = f"{registry.host}/theirs@{made}"
        folder = await cache.fetch(name, registry.access, silent)
        criu_dump.same_tree(parts, folder, without=frozenset({"snap.json"}))
        assert record.read(folder).container_name == "theirs"


async def test_changed_bytes_at_the_registry_are_refused(
    registry: OwnRegistry, tmp_path: Path
) -> None:
    folder = criu_dump.make_parts(tmp_path / "p", (2 * MIB,), seed=77)
    pushed = await Pusher().push(folder, spec(registry.access, "tampered"), silent)
    async with Registry.connect(registry.access) as client:
        body, media_type = await client.manifest("tampered", pushed.digest)
    layer = manifest.parse(body, media_type).layers[-1]
    [path] = registry.blob_files(layer.digest.removeprefix("sha256:"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    async with cache_in(tmp_path / "cache") as cache:
        name = name_of(registry.access, "tampered", pushed)
        with pytest.raises(Refused):
            await cache.fetch(name, registry.access, silent)
        assert not left_in(tmp_path / "cache")


async def test_deleted_image_is_not_found(registry: OwnRegistry, tmp_path: Path) -> None:
    folder = criu_dump.make_parts(tmp_path / "p", (4096,))
    pushed = await Pusher().push(folder, spec(registry.access, "deleted"), silent)
    async with Registry.connect(registry.access) as client:
        assert await client.delete_manifest("deleted", Digest(pushed.digest))
        assert not await client.delete_manifest("deleted", Digest(pushed.digest))
    async with cache_in(tmp_path / "cache") as cache:
        name = name_of(registry.access, "deleted", pushed)
        with pytest.raises(NotFound):
            await cache.fetch(name, registry.access, silent)


async def test_base_images_are_written_once_and_read_by_others(
    registry: OwnRegistry, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "motd").write_text("hello")
    (tree / "link").symlink_to("etc/motd")
    listed = [FileEntry("opt/run.sh", content=b"#!/bin/sh\n"), FileEntry("sh", link_target="x")]
    config = ImageConfig(cmd=("/opt/run.sh",), env={"A": "b"})
    image = ImageSource((tree, listed), config)
    made = await push_image(registry.access, "base/app", "latest", image)
    blobs = registry.stored_blobs
    assert await push_image(registry.access, "base/app", "again", image) == made
    assert registry.stored_blobs == blobs
    source = ["--creds", "snap:secret", "--tls-verify=false"]
    skopeo = rootfs.ready_parts(print).tool("skopeo")
    told = run([*skopeo, "inspect", *source, f"docker://{registry.host}/base/app:latest"])
    assert json.loads(told)["Env"] == ["A=b"]
