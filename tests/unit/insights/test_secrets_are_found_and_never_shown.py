"""Secrets are found where they lie, across the borders of pieces too, and their values stay unsaid."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from agent.formats.criu_images import PAGE_SIZE
from agent.insights.secret_kinds import LONGEST, Hit, Search
from tests.fakes.criu_images import HEAP, tar_of, write_dump
from tests.unit.insights.test_images_are_reported import report_of

PEM = b"-----BEGIN RSA PRIVATE KEY-----\n" + b"MIIEowIBAAKCAQEA" * 8 + b"\n-----END"
JWT = (
    b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
SAMPLES = {
    "private_key": PEM,
    "aws_access_key_id": b"AKIA" + b"ABCDEFGH23456723",
    "aws_secret_access_key": b"aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00",
    "github_token": b"ghp_" + b"a1B2" * 9,
    "gitlab_token": b"glpat-" + b"x7Yz" * 5,
    "slack_token": b"xoxb-" + b"123456789012-abc",
    "google_api_key": b"AIza" + b"Sy0aB1c" * 5,
    "stripe_key": b"sk_live_" + b"4eC39HqLyjWDarjtT1zdp7dc",
    "npm_token": b"npm_" + b"a1B2" * 9,
    "jwt": JWT,
    "registry_credential": b'{"auth": "dXNlcjpwYXNzd29yZDE="}',
    "authorization_header": b"Authorization: Basic dXNlcjpwYXNzd29yZDE=\r\n",
    "password_in_url": b"postgres://app:s3cr3t-pw@db.internal/x",
    "password": b"\npassword: Tr0ub4dor\n",
    "api_key": b'"api_key": "0a1b2c3d4e5f"',
}
HARMLESS = (
    b"password: string",
    b"-----BEGIN RSA PRIVATE KEY-----",
    b"-----BEGIN CERTIFICATE-----\n" + b"MIIEowIBAAKCAQEA" * 8,
    b"AKIAABC",
    b"https://example.org/a:b@c",
    b"eyJhbGciOiJIUzI1NiJ9",
    b"Enter password: %s",
    b"passwords are hashed",
)


def hits(content: bytes, piece: int = 1 << 20) -> list[Hit]:
    """What is found in ``content`` when it comes in pieces."""
    found: list[Hit] = []
    search = Search(found.append, b"k" * 32)
    for at in range(0, len(content), piece):
        search.feed(content[at : at + piece])
    search.end()
    return found


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_kind_is_known(kind: str) -> None:
    assert [hit.kind for hit in hits(b"\0\0" + SAMPLES[kind] + b"\0")] == [kind]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_one_is_left_alone(text: bytes) -> None:
    assert hits(b"\0" + text + b"\0") == []


@pytest.mark.parametrize("piece", [1, 7, 4096, LONGEST, LONGEST + 1])
def test_borders_of_pieces_hide_nothing(piece: int) -> None:
    size = 3 * LONGEST if piece > 1 else LONGEST + 300
    content = bytearray(b"\0" * size)
    places = (0, LONGEST - 10, size - 200)
    for at in places:
        content[at : at + len(JWT)] = JWT
    found = hits(bytes(content), piece)
    assert [hit.offset for hit in found] == list(places)
    assert len({hit.digest for hit in found}) == 1


def test_a_file_with_holes_hides_nothing(tmp_path: Path) -> None:
    parts = write_dump(tmp_path)
    with (tmp_path / "held").open("wb") as held:
        held.truncate(1 << 20)
        held.write(b"x" * 4096 + SAMPLES["password_in_url"])
    volume = parts / "snap/volumes/data.tar"
    volume.parent.mkdir(parents=True)
    packed = ["tar", "--create", "--sparse", "--format=posix", f"--file={volume}"]
    subprocess.run([*packed, "--directory", str(tmp_path), "held"], check=True)
    found = report_of(parts, "secrets")
    places = {row["kind"]: row["place"] for row in found["findings"]}
    assert places["password_in_url"]["path"] == "held"
    assert found["not_read"] == []


def test_places_are_told_and_values_are_not(tmp_path: Path) -> None:
    at = PAGE_SIZE - 20  # over the border of two pages
    heap = b"\0" * at + SAMPLES["github_token"]
    parts = write_dump(tmp_path, heap=heap)
    files = {"etc/app.conf": b"# x\n" + SAMPLES["password_in_url"], "etc/none": b"nothing"}
    (parts / "rootfs-diff.tar").write_bytes(gzip.compress(tar_of(files)))
    found = report_of(parts, "secrets")
    text = json.dumps(found)
    for value in ("a1B2a1B2", "s3cr3t-pw", "opensesame1"):
        assert value not in text
    places = {row["kind"]: row["place"] for row in found["findings"]}
    assert places["github_token"] == {
        "type": "memory",
        "pid": 1,
        "vaddr": f"{HEAP + at:#x}",
        "mapping": "[heap]",
    }
    assert places["password_in_url"] == {
        "type": "file",
        "archive": "rootfs-diff.tar",
        "path": "etc/app.conf",
        "offset": 4 + SAMPLES["password_in_url"].index(b"s3cr3t"),
    }
    # the same value in a variable, in the configuration and in memory is one secret
    same = [row for row in found["findings"] if row["kind"] == "secret_variable"]
    assert [row["place"].get("name") for row in same] == ["API_TOKEN", "DB_PASSWORD"]
    assert len({row["secret"] for row in same}) == 1
    assert found["not_read"] == []
