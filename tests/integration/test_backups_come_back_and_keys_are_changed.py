"""``snap-api backup``, ``restore`` and ``rotate-key`` as an operator runs them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.store import migrations, secrets
from controlplane.store.secrets import Sealer
from tests.fakes.api_process import PASSWORD, ApiProcess, running

REGISTRY = {
    "name": "r",
    "url": "https://registry.test:5000",
    "username": "u",
    "password": "a-secret",
}


async def snap_api(folder: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run the program to its end; its status and what it said."""
    environment = {"PATH": os.environ["PATH"], "SNAP_DATA_DIR": str(folder), **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "controlplane", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def users_of(api: ApiProcess) -> set[str]:
    return {user["username"] for user in await api.call("GET", "/config/user/list")}


def key_ids(folder: Path) -> set[bytes]:
    with closing(sqlite3.connect(folder / "snap.db")) as database:
        rows = database.execute("SELECT sealed FROM secrets").fetchall()
    return {secrets.key_id_of(row[0]) for row in rows}


async def test_a_backup_of_a_running_server_comes_back(tmp_path: Path) -> None:
    folder, target = tmp_path / "data", tmp_path / "kept.tar"
    async with running(folder) as api:
        await api.call("POST", "/config/registry/create", REGISTRY)
        status, said = await snap_api(folder, "backup", str(target))
        assert status == 0, said
        assert "does not hold the key file" in said
        assert target.stat().st_mode & 0o777 == 0o600
        await api.call("POST", "/config/user/create", {"username": "late", "password": PASSWORD})
        ca = (await api.call("POST", "/ws/ticket")) and (folder / "tls" / "ca.pem").read_bytes()
        refused, why = await snap_api(folder, "restore", str(target))
        assert refused == 1
        assert "in use by another snap-api" in why
        assert await users_of(api) == {"admin", "late"}
        await api.stop()
        assert (await snap_api(folder, "backup", str(target)))[0] == 1  # nothing is overwritten
        (folder / "tls" / "ca.pem").write_text("lost")
        status, said = await snap_api(folder, "restore", str(target))
        assert status == 0, said
        assert (folder / "tls" / "ca.pem").read_bytes() == ca
        await api.start()
        assert await users_of(api) == {"admin"}
        listed = await api.call("GET", "/config/registry/list")
        assert [config["name"] for config in listed["registry_configs"]] == ["r"]
    assert [file for file in folder.iterdir() if "before-" in file.name]


async def test_a_backup_holds_no_key_and_opens_with_the_right_one_only(tmp_path: Path) -> None:
    folder, target, fresh = tmp_path / "data", tmp_path / "kept.tar", tmp_path / "fresh"
    async with running(folder) as api:
        await api.call("POST", "/config/registry/create", REGISTRY)
        await api.stop()
    assert (await snap_api(folder, "backup", str(target)))[0] == 0
    key = (folder / "secret.key").read_bytes().strip()
    content = target.read_bytes()
    assert key not in content
    assert bytes.fromhex(key.decode()) not in content
    assert b"a-secret" not in content
    assert b"PRIVATE KEY" not in content
    with tarfile.open(target) as tar:
        assert tar.getnames() == ["snap.db", "tls.sealed"]
    fresh.mkdir()
    for wrong in (None, "ab" * 32):
        if wrong is not None:
            (fresh / "secret.key").write_text(wrong)
        status, said = await snap_api(fresh, "restore", str(target))
        assert (status, "does not open this backup" in said) == (1, True), said
        assert not (fresh / "snap.db").exists()
    (fresh / "secret.key").write_bytes(key)
    assert (await snap_api(fresh, "restore", str(target)))[0] == 0
    async with running(fresh) as api:
        assert await users_of(api) == {"admin"}


@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 10240], ids=["empty", "text", "zeros"])
async def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "x.tar"
    source.write_bytes(content)
    status, said = await snap_api(tmp_path / "data", "restore", str(source))
    assert status == 1
    assert "can't be read as a backup" in said
    assert "Traceback" not in said


async def test_a_backup_by_a_newer_version_is_refused(tmp_path: Path) -> None:
    newer = tmp_path / "snap.db"
    with closing(sqlite3.connect(newer)) as database:
        database.execute(f"PRAGMA user_version={len(migrations.STEPS) + 1}")
        database.execute("CREATE TABLE t (x)")
        database.commit()
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(newer, "snap.db")
    status, said = await snap_api(tmp_path / "data", "restore", str(tmp_path / "x.tar"))
    assert status == 1
    assert "newer version of SNAP" in said


async def test_a_changed_key_seals_every_secret_anew(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with running(folder) as api:
        await api.call("POST", "/config/registry/create", REGISTRY)
        assert (await snap_api(folder, "rotate-key"))[0] == 1  # not while it runs
        await api.stop()
        old = bytes.fromhex((folder / "secret.key").read_text())
        status, said = await snap_api(folder, "rotate-key")
        assert status == 0, said
        new = bytes.fromhex((folder / "secret.key").read_text())
        assert new != old
        assert key_ids(folder) == {Sealer(new).key_id}
        assert Sealer(old).key_id not in (folder / "snap.db").read_bytes()
        assert new.hex() not in said
        await api.start()
        assert await users_of(api) == {"admin"}  # the token from before: its key is a sealed secret


async def test_a_change_of_the_key_that_broke_off_is_completed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with running(folder) as api:
        await api.stop()
        old = bytes.fromhex((folder / "secret.key").read_text())
        new = b"n" * 32
        secrets.write_keys(folder / "secret.key", new, old)  # as after the first step
        await api.start()  # both open
        await api.stop()
        assert (await snap_api(folder, "rotate-key"))[0] == 0
        assert key_ids(folder) == {Sealer(new).key_id}
        assert (folder / "secret.key").read_text().split() == [new.hex()]
        await api.start()
        assert await users_of(api) == {"admin"}


@pytest.mark.parametrize(
    ("command", "folder", "said"),
    [
        ((), "file/data", "The data folder {} can't be made (Not a directory)"),
        (("restore", "kept.tar"), "file", "The data folder {} can't be made (File exists)"),
        (("backup", "kept.tar"), "nowhere", "There is no database in {}; set SNAP_DATA_DIR."),
        (("rotate-key",), "nowhere", "There is no database in {}; set SNAP_DATA_DIR."),
    ],
    ids=["serve", "restore", "backup", "rotate-key"],
)
async def test_a_folder_that_can_not_be_is_said_in_one_sentence(
    tmp_path: Path, command: tuple[str, ...], folder: str, said: str
) -> None:
    (tmp_path / "file").touch()
    status, output = await snap_api(tmp_path / folder, *command)
    assert status == 1
    assert output.startswith("snap-api: " + said.format(tmp_path / folder))
    assert output.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


async def test_a_backup_makes_no_key(tmp_path: Path) -> None:
    folder, target = tmp_path / "data", tmp_path / "kept.tar"
    async with running(folder) as api:
        await api.stop()
    (folder / "secret.key").unlink()
    status, output = await snap_api(folder, "backup", str(target))
    assert status == 1
    assert "secret.key can't be read" in output
    assert not target.exists()
    assert not (folder / "secret.key").exists()
