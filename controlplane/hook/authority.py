"""The certificates of the admission listener: an authority of their own, renewed while reviews go on.

A leaf is replaced at two thirds of its life, by the same authority: nothing that clusters were told changes. The
authority itself is replaced in three steps, so that no review is refused: the next one is made and told to the
clusters beside the old one; once they all know it, it signs; the old one stays told until it expires.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from controlplane import certificates, durable
from controlplane.certificates import SKEW, Key
from controlplane.errors import Broken

CA_LIVES: Final = 10  # an authority lives so many times as long as its leaves, ten years at most
CA_MOST: Final = timedelta(days=3650)
_RENEWED_AT: Final = 2 / 3
_NAME: Final = "SNAP admission"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the leaf is to be: good for ``names``, for ``life``."""

    names: frozenset[str]
    life: timedelta


class Authority:
    """The listener's certificates, in files of one folder. Methods block for a moment; one caller at a time.

    Args:
        now: the time of day.
    """

    def __init__(
        self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._folder = folder
        self._now = now
        self._context: ssl.SSLContext | None = None

    def ensure(self, wanted: Wanted, *, anew: bool = False) -> bool:
        """Make what is missing, not as wanted, or past two thirds of its life; whether the leaf is a new one.

        Args:
            anew: make a new leaf in any case.

        Raises:
            Broken: the folder can't be used.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._authority("ca") is None and self.is_changing:
                self._hand_over()  # too late for a gentle change: nobody trusts the old one any more
            ca = self._authority("ca") or self._make_authority("ca", wanted.life)
            if _is_worn(ca[0], self._now()) and not self.is_changing:
                self._make_authority("next-ca", wanted.life)
            chain = self._folder / "server.pem"
            is_new = anew or not self._is_good(chain, ca[0], wanted)
            if is_new:
                self._make_leaf(ca, wanted)
        except (OSError, ValueError, TypeError) as cause:
            raise self._unusable(cause) from cause
        return is_new

    def load(self) -> ssl.SSLContext:
        """What the listener shows: connections made from now on get the certificate that ``ensure`` made last.

        Call it in the listener's own thread, where no handshake is going on: certificate and key change one after
        the other.

        Raises:
            Broken: it can't be used.
        """
        if self._context is None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.set_alpn_protocols(["http/1.1"])
        try:
            self._context.load_cert_chain(self._folder / "server.pem")
        except (OSError, ssl.SSLError) as cause:
            raise self._unusable(cause) from cause
        return self._context

    @property
    def bundle_pem(self) -> str:
        """Whom clusters should trust: the authority that signs, the next one, and those before."""
        names = ("ca", "next-ca", "old-ca")
        found = [self._certificate(name) for name in names]
        valid = [c for c in found if c is not None and c.not_valid_after_utc > self._now()]
        return b"".join(certificates.pem(c) for c in valid).decode()

    @property
    def is_changing(self) -> bool:
        """Whether a next authority waits until every cluster knows it; one that can't sign any more does not."""
        return self._authority("next-ca") is not None

    def bundle_is_known(self, wanted: Wanted) -> None:
        """Every cluster has the bundle: the next authority signs from now on."""
        if self.is_changing:
            self._hand_over()
            self.ensure(wanted, anew=True)

    def _hand_over(self) -> None:
        """One rename is the change: killed before it, the next start finds both as they were and does it again."""
        old = self._certificate("ca")
        if old is not None:
            durable.write(self._folder / "old-ca.pem", certificates.pem(old))
        (self._folder / "next-ca.pem").replace(self._folder / "ca.pem")
        durable.sync_folder(self._folder)

    def renew_in(self) -> timedelta:
        """How long until ``ensure`` has something to do."""
        due = [
            _worn_at(found)
            for name in ("server", *(() if self.is_changing else ("ca",)))
            if (found := self._certificate(name)) is not None
        ]
        return max(min(due, default=self._now()) - self._now(), timedelta())

    @property
    def expires_at(self) -> datetime | None:
        """When the leaf ends."""
        found = self._certificate("server")
        return found.not_valid_after_utc if found else None

    def _authority(self, name: str) -> tuple[x509.Certificate, Key] | None:
        certificate = self._certificate(name)
        if certificate is None or certificate.not_valid_after_utc <= self._now():
            return None  # nobody trusts it any more
        file = self._folder / f"{name}.pem"
        if b"PRIVATE KEY" not in file.read_bytes():
            return None  # of a version that had them in two files
        return certificate, certificates.read_key(file)

    def _make_authority(self, name: str, life: timedelta) -> tuple[x509.Certificate, Key]:
        made = certificates.authority(f"{_NAME} CA", min(life * CA_LIVES, CA_MOST), self._now())
        # in one file: no crash leaves the key of one authority beside the certificate of another
        both = certificates.pem(made[1]) + certificates.pem(made[0])
        durable.write(self._folder / f"{name}.pem", both)
        return made

    def _make_leaf(self, ca: tuple[x509.Certificate, Key], wanted: Wanted) -> None:
        made, key = certificates.leaf(ca, _NAME, wanted.names, wanted.life, self._now())
        chain = certificates.pem(key) + certificates.pem(made) + certificates.pem(ca[0])
        durable.write(self._folder / "server.pem", chain)

    def _is_good(self, chain: Path, ca: x509.Certificate, wanted: Wanted) -> bool:
        leaf = self._certificate("server")
        if leaf is None:
            return False
        try:
            leaf.verify_directly_issued_by(ca)
        except (InvalidSignature, TypeError, ValueError):
            return False
        has_names = set(certificates.general(wanted.names)) <= certificates.names_of(leaf)
        longest = wanted.life + timedelta(seconds=5)
        is_short = leaf.not_valid_after_utc - leaf.not_valid_before_utc - SKEW <= longest
        return chain.exists() and has_names and is_short and not _is_worn(leaf, self._now())

    def _unusable(self, cause: Exception) -> Broken:
        return Broken(f"The certificates in {self._folder} can't be used.", details=str(cause))

    def _certificate(self, name: str) -> x509.Certificate | None:
        path = self._folder / f"{name}.pem"
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except FileNotFoundError:
            return None


def _worn_at(certificate: x509.Certificate) -> datetime:
    begin = certificate.not_valid_before_utc + SKEW
    return begin + (certificate.not_valid_after_utc - begin) * _RENEWED_AT


def _is_worn(certificate: x509.Certificate, now: datetime) -> bool:
    return now >= _worn_at(certificate)
