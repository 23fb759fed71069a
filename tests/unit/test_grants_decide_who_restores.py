"""Only digests that the control plane granted to the pod's namespace are restored."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.formats.digest import Digest
from agent.restore.grants import Grants, SignedGrant

IMAGE = Digest("sha256:" + "a" * 64)
KEY = Ed25519PrivateKey.generate()


def signed(key: Ed25519PrivateKey = KEY, **changes: object) -> SignedGrant:
    grant = {"digest": IMAGE, "cluster": "c1", "namespaces": ["shop"], "expires": "", **changes}
    payload = json.dumps(grant).encode()
    return SignedGrant(payload, key.sign(payload))


def holding(file: Path, *grants: SignedGrant) -> Grants:
    held = Grants(file, "c1")
    held.set_key(KEY.public_key().public_bytes_raw())
    held.put(grants, replace=True)
    return held


def test_a_granted_namespace_may_restore(tmp_path: Path) -> None:
    assert holding(tmp_path / "grants", signed()).allows(IMAGE, "shop") == ""


@pytest.mark.parametrize(
    ("grant", "namespace", "reason"),
    [
        pytest.param(signed(), "bank", "not shared with namespace bank", id="another namespace"),
        pytest.param(signed(cluster="c2"), "shop", "no grant", id="another cluster"),
        pytest.param(signed(Ed25519PrivateKey.generate()), "shop", "no grant", id="another key"),
        pytest.param(signed(digest="latest"), "shop", "no grant", id="no digest"),
        pytest.param(signed(expires="2020-01-01T00:00:00Z"), "shop", "expired", id="expired"),
        pytest.param(signed(expires="soon"), "shop", "expired", id="unreadable end"),
        pytest.param(SignedGrant(b"{", KEY.sign(b"{")), "shop", "no grant", id="no JSON"),
    ],
)
def test_everything_else_is_refused(
    tmp_path: Path, grant: SignedGrant, namespace: str, reason: str
) -> None:
    assert reason in holding(tmp_path / "grants", grant).allows(IMAGE, namespace)


def test_a_grant_ends_when_it_says(tmp_path: Path) -> None:
    held = holding(tmp_path / "grants", signed(expires="2030-01-01T00:00:00Z"))
    assert held.allows(IMAGE, "shop", now=datetime(2029, 12, 31, tzinfo=UTC)) == ""
    assert held.allows(IMAGE, "shop", now=datetime(2030, 1, 1, tzinfo=UTC))


def test_a_grant_says_how_memory_comes(tmp_path: Path) -> None:
    file = tmp_path / "grants"
    sooner, later = "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z"
    others = signed(restore="auto", namespaces=["bank"], expires=later)
    holding(file, signed(restore="eager", expires=sooner), others)
    held = Grants(file, "c1")
    assert held.mode(IMAGE, "shop") == "eager"
    held.put([signed(restore="lazy", expires=later)], replace=False)
    assert held.mode(IMAGE, "shop") == "lazy"  # the one that was signed last
    assert held.mode(IMAGE, "nowhere") == ""
    held.put([signed()], replace=True)
    assert held.mode(IMAGE, "shop") == ""


def test_grants_are_there_without_the_control_plane(tmp_path: Path) -> None:
    file = tmp_path / "agent" / "grants"
    holding(file, signed())
    assert Grants(file, "c1").allows(IMAGE, "shop") == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_file_grants_nothing(tmp_path: Path) -> None:
    file = tmp_path / "grants"
    file.write_text("not JSON")
    assert Grants(file, "c1").allows(IMAGE, "shop")


def test_a_new_key_drops_what_the_old_one_signed(tmp_path: Path) -> None:
    held = holding(tmp_path / "grants", signed())
    held.set_key(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    assert held.allows(IMAGE, "shop")


def test_replacing_takes_a_grant_back(tmp_path: Path) -> None:
    held = holding(tmp_path / "grants", signed())
    assert held.put([], replace=True) == 0
    assert held.allows(IMAGE, "shop")


def test_refused_grants_are_counted(tmp_path: Path) -> None:
    held = holding(tmp_path / "grants")
    assert held.put([signed(), signed(cluster="c2")], replace=False) == 1
