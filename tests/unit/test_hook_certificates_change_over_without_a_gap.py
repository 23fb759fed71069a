"""The admission listener's certificates: renewed in time, and never one that clusters don't trust."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.errors import Broken
from controlplane.hook.authority import Authority, Wanted

DAY = timedelta(days=1)
WANTED = Wanted(frozenset({"snap.test", "127.0.0.1"}), 30 * DAY)


class Clock:
    """A time of day that moves when it is told to."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def leaf(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())


def trusted(authority: Authority, folder: Path) -> bool:
    """Whether who knows the bundle trusts the leaf."""
    for ca in x509.load_pem_x509_certificates(authority.bundle_pem.encode()):
        try:
            leaf(folder).verify_directly_issued_by(ca)
        except Exception:  # noqa: BLE001, S112 - any failure means no
            continue
        return True
    return False


def test_what_is_good_stays(tmp_path: Path) -> None:
    assert Authority(tmp_path).ensure(WANTED)
    before = leaf(tmp_path)
    again = Authority(tmp_path)
    assert not again.ensure(WANTED)
    assert leaf(tmp_path) == before
    assert trusted(again, tmp_path)


def test_the_folder_is_for_nobody_else(tmp_path: Path) -> None:
    Authority(tmp_path / "tls").ensure(WANTED)
    assert {path.stat().st_mode & 0o77 for path in (tmp_path / "tls").iterdir()} == {0}


@pytest.mark.parametrize(
    "wanted",
    [Wanted(frozenset({"other.test"}), WANTED.life), Wanted(WANTED.names, DAY)],
    ids=["another name", "shorter"],
)
def test_a_leaf_that_is_not_as_wanted_is_made_anew(tmp_path: Path, wanted: Wanted) -> None:
    authority = Authority(tmp_path)
    authority.ensure(WANTED)
    bundle = authority.bundle_pem
    assert authority.ensure(wanted)
    assert authority.bundle_pem == bundle


def test_a_leaf_is_renewed_at_two_thirds_of_its_life_by_the_same_authority(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority(tmp_path, clock)
    authority.ensure(WANTED)
    bundle, first = authority.bundle_pem, leaf(tmp_path)
    assert abs(authority.renew_in() - 20 * DAY) < timedelta(minutes=1)
    clock.now += 19 * DAY
    assert not authority.ensure(WANTED)
    clock.now += 1 * DAY
    assert authority.renew_in() < timedelta(minutes=1)
    clock.now += timedelta(minutes=1)
    assert authority.ensure(WANTED)
    assert leaf(tmp_path) != first
    assert authority.bundle_pem == bundle


def test_a_worn_authority_hands_over_once_everybody_knows_the_next(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority(tmp_path, clock)
    authority.ensure(WANTED)
    old = authority.bundle_pem
    clock.now += 201 * DAY  # two thirds of ten lives
    authority.ensure(WANTED)
    assert authority.is_changing
    both = authority.bundle_pem
    assert both.startswith(old)
    assert both != old
    assert trusted(authority, tmp_path)
    authority.bundle_is_known(WANTED)
    assert not authority.is_changing
    assert set(x509.load_pem_x509_certificates(authority.bundle_pem.encode())) == set(
        x509.load_pem_x509_certificates(both.encode())
    )
    assert trusted(authority, tmp_path)
    restarted = Authority(tmp_path, clock)
    assert not restarted.ensure(WANTED)
    clock.now += 100 * DAY  # the old authority has expired
    restarted.ensure(WANTED)
    assert old not in restarted.bundle_pem
    assert trusted(restarted, tmp_path)


def test_an_authority_that_expired_while_nobody_ran_is_replaced_at_once(tmp_path: Path) -> None:
    clock = Clock()
    Authority(tmp_path, clock).ensure(WANTED)
    old = (tmp_path / "ca.pem").read_text()
    clock.now += 400 * DAY
    authority = Authority(tmp_path, clock)
    assert authority.ensure(WANTED)
    assert old not in authority.bundle_pem
    assert trusted(authority, tmp_path)


def test_a_next_authority_that_expired_too_is_not_waited_for(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority(tmp_path, clock)
    authority.ensure(WANTED)
    clock.now += 201 * DAY
    authority.ensure(WANTED)
    assert authority.is_changing
    clock.now += 400 * DAY
    restarted = Authority(tmp_path, clock)
    assert restarted.ensure(WANTED)
    assert not restarted.is_changing
    assert trusted(restarted, tmp_path)


@pytest.mark.parametrize("calls", range(4))
def test_a_change_that_is_killed_anywhere_is_made_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    clock = Clock()
    authority = Authority(tmp_path, clock)
    authority.ensure(WANTED)
    clock.now += 201 * DAY
    authority.ensure(WANTED)
    told, seen = authority.bundle_pem, []
    replace = Path.replace

    def killed(file: Path, target: Path) -> Path:
        seen.append(target)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return replace(file, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with contextlib.suppress(KeyboardInterrupt):
            authority.bundle_is_known(WANTED)
    assert (tmp_path / "ca.pem").exists()
    restarted = Authority(tmp_path, clock)
    restarted.ensure(WANTED)
    restarted.bundle_is_known(WANTED)
    assert not restarted.is_changing
    known = set(x509.load_pem_x509_certificates(told.encode()))
    assert set(x509.load_pem_x509_certificates(restarted.bundle_pem.encode())) == known
    assert trusted(restarted, tmp_path)


def test_files_of_a_version_that_kept_its_key_apart_are_replaced(tmp_path: Path) -> None:
    Authority(tmp_path).ensure(WANTED)
    both = (tmp_path / "ca.pem").read_text()
    (tmp_path / "ca.pem").write_text(both[both.index("-----BEGIN CERTIFICATE") :])
    authority = Authority(tmp_path)
    assert authority.ensure(WANTED)
    assert trusted(authority, tmp_path)


def test_damaged_files_are_said(tmp_path: Path) -> None:
    Authority(tmp_path).ensure(WANTED)
    (tmp_path / "ca.pem").write_text("damaged")
    with pytest.raises(Broken, match="can't be used"):
        Authority(tmp_path).ensure(WANTED)
