"""The two images as they are built: small, complete, nothing beside what runs, and as little allowed as promised."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from deploy.devnode.ports import free_port
from deploy.devnode.world import World
from deploy.images import building
from deploy.images.layout import Layout

MB = 1_000_000
START_S = 90.0
# a read-only root with a writable /tmp and data folder, as the Deployment has it
ENTER = """
mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"
mount -t tmpfs tmpfs "$1/tmp"; mount -t proc proc "$1/proc"; mount --bind /dev "$1/dev"
[ -z "$2" ] || mount --bind "$2" "$1/var/lib/snap-api"
root=$1 user=$3; shift 3
exec chroot --userspec="$user" "$root" "$@"
"""


@pytest.fixture(scope="module")
def images() -> Mapping[str, Layout]:
    """Both, built now unless this content was built before."""
    if os.geteuid() != 0:
        pytest.fail("images are built as root", pytrace=False)
    return building.ready(print)


@pytest.fixture(scope="module")
def roots(
    images: Mapping[str, Layout], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Path]]:
    """What is inside."""
    folders = {half: tmp_path_factory.mktemp(half) for half in images}
    for half, folder in folders.items():
        images[half].unpack(folder)
        folder.chmod(0o755)
    yield folders
    for folder in folders.values():
        shutil.rmtree(folder)


def _inside(root: Path, *argv: str, user: str = "65532:65532", data: str = "") -> list[str]:
    apart = ["unshare", "-m", "--propagation", "private", "sh", "-euc", ENTER]
    return [*apart, "sh", str(root), data, user, *argv]


def _run(root: Path, *argv: str, user: str = "65532:65532") -> str:
    done = subprocess.run(
        _inside(root, *argv, user=user), check=False, capture_output=True, text=True, timeout=60
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(("half", "at_most"), [("api", 150 * MB), ("agent", 170 * MB)])
def test_a_node_pulls_no_more_than_was_promised(
    images: Mapping[str, Layout], half: str, at_most: int
) -> None:
    assert images[half].size_bytes <= at_most


@pytest.mark.parametrize("half", ["api", "agent"])
def test_labels_say_what_it_is(images: Mapping[str, Layout], half: str) -> None:
    labels = images[half].config["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"snap-{half}"
    assert labels["org.opencontainers.image.version"] == building.version()
    assert labels["org.opencontainers.image.revision"].startswith("content-")
    assert labels["org.opencontainers.image.base.name"]


def test_the_control_plane_is_nobody_in_particular(images: Mapping[str, Layout]) -> None:
    assert images["api"].config["config"]["User"] == "65532:65532"


@pytest.mark.parametrize("half", ["api", "agent"])
def test_what_only_builds_need_is_not_there(roots: Mapping[str, Path], half: str) -> None:
    root = roots[half]
    programs = {
        path.name for folder in ("usr/bin", "usr/sbin") for path in (root / folder).iterdir()
    }
    assert not programs & {
        "sh",
        "bash",
        "dash",
        "apt-get",
        "dpkg",
        "perl",
        "pip",
        "gcc",
        "wget",
        "curl",
    }
    site = next(root.glob("usr/lib/snap/lib/python3.*/site-packages"))
    other = {"api": "agent", "agent": "controlplane"}[half]
    assert not {"pip", "setuptools", "tests", other} & {path.name for path in site.iterdir()}
    assert not [path for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o6000]
    assert not (root / "etc/resolv.conf").read_text()


@pytest.mark.parametrize("half", ["api", "agent"])
def test_the_list_of_packages_is_whole(roots: Mapping[str, Path], half: str) -> None:
    listed = json.loads((roots[half] / "usr/share/snap/sbom.cdx.json").read_text())["components"]
    purls = {str(one["purl"]).partition("@")[0] for one in listed}
    site = next(roots[half].glob("usr/lib/snap/lib/python3.*/site-packages"))
    distributions = {path.name.partition("-")[0] for path in site.glob("*.dist-info")}
    found = {purl.removeprefix("pkg:pypi/").replace("-", "_") for purl in purls if ":pypi/" in purl}
    assert {name.lower().replace("-", "_") for name in distributions} == found
    assert {"pkg:deb/debian/libc6", "pkg:deb/debian/python3", "pkg:pypi/weaversoft-snap"} <= purls
    assert ("pkg:generic/criu" in purls) is (half == "agent")


def test_help_and_the_description_of_the_api_are_there(roots: Mapping[str, Path]) -> None:
    assert "SNAP_DATA_DIR" in _run(roots["api"], "/usr/lib/snap/bin/snap-api", "--help")
    described = json.loads(_run(roots["api"], "/usr/lib/snap/bin/snap-api", "openapi"))
    assert "/checkpoint/list" in described["paths"]
    told = _run(roots["agent"], "/usr/lib/snap/bin/snap-agent", "--help", user="0:0")
    assert "SNAP_CONTROL_PLANE" in told


async def test_the_control_plane_serves_from_a_read_only_root(
    roots: Mapping[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 65532, 65532)
    http, grpc = free_port(), free_port()
    settings = {
        "PATH": "/usr/bin",
        "SNAP_DATA_DIR": "/var/lib/snap-api",
        "SNAP_HTTP_ADDR": f"127.0.0.1:{http}",
        "SNAP_GRPC_ADDR": f"127.0.0.1:{grpc}",
        "SNAP_HOOK_ADDR": f"127.0.0.1:{free_port()}",
    }
    argv = _inside(roots["api"], "/usr/lib/snap/bin/snap-api", data=str(data))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{http}"))
        process = await asyncio.create_subprocess_exec(
            *argv, env=settings | {"PATH": os.environ["PATH"]}, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(START_S):
                while not await _is_ready(client):
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            async with client.get("/docs") as answer:
                assert answer.status == 200
            async with client.get("/openapi.json") as answer:
                assert (await answer.json())["openapi"] == "3.1.0"
        finally:
            if process.returncode is None:
                process.terminate()
            assert await asyncio.wait_for(process.wait(), 60) == 0
    assert (data / "snap.db").stat().st_uid == 65532


def test_criu_works_wherever_its_folder_is_copied(
    roots: Mapping[str, Path], tmp_path: Path
) -> None:
    there = tmp_path / "somewhere else"
    shutil.copytree(roots["agent"] / "opt/snap/image/criu", there)
    link = tmp_path / "criu"
    link.symlink_to(there / "bin/criu")
    told = subprocess.run([str(link), "--version"], check=True, capture_output=True, text=True)
    number = (there / "VERSION").read_text().strip()
    assert f"Version: {number}" in told.stdout
    assert tuple(map(int, number.split(".")[:2])) >= (4, 1)


@pytest.mark.parametrize("name", ["snap-runc", "snap-dump", "snap-lazy"])
def test_the_agent_brings_the_scripts_of_the_node(roots: Mapping[str, Path], name: str) -> None:
    assert len(list(roots["agent"].glob(f"usr/lib/snap/**/agent/**/{name}.sh"))) == 1


def test_nodes_registry_takes_it(images: Mapping[str, Layout], world: World) -> None:
    registry = world.running.base
    reference = images["api"].push(registry.host, registry.ca)
    assert reference == f"{registry.host}/snap-api@{images['api'].digest}"
    blobs = registry.storage / "docker/registry/v2/blobs/sha256"
    digest = images["api"].digest.removeprefix("sha256:")
    assert (blobs / digest[:2] / digest / "data").is_file()


async def _is_ready(client: aiohttp.ClientSession) -> bool:
    try:
        async with client.get("/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
