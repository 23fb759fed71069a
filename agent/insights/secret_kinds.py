"""What keys, tokens and passwords look like, and a search for them in bytes that come in pieces.

Only kind, offset and a keyed digest (to know the same secret again) leave this module, never a value.

Source: the issuers' published formats (AWS, GitHub, GitLab, Slack, Google, Stripe, npm); RFC 7468, RFC 7519, RFC 3986.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 8 << 10  # bytes from the beginning of a secret to the end of what is matched
_BEFORE: Final = 64  # bytes in front of a secret that decide whether it is one
_VALUE: Final = rb"[^\x00-\x20\x7f-\xff\"'`,;<>&{}()\[\]$%\\*|]{6,128}"
_ASSIGNED: Final = rb"[\"']?[ \t]{0,8}(?:=>|:=|[=:])[ \t]{0,8}[\"']?"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of secret: where ``anchors`` are found, ``pattern`` decides; its last group is the value."""

    name: str
    anchors: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    guessed: bool = False  # a word and a value: only values that look made for it count


def _kind(name: str, anchors: tuple[bytes, ...], pattern: bytes, *, guessed: bool = False) -> Kind:
    return Kind(name, anchors, re.compile(pattern), guessed)


KINDS: Final = (
    _kind(
        "private_key",
        (b"-----BEGIN ",),
        rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        rb"(?:\r?\n|\\n|\\r\\n)([A-Za-z0-9+/=:, \r\n\\-]{40,512})",
    ),
    _kind(
        "aws_access_key_id", (b"AKIA", b"ASIA"), rb"(?<![A-Z0-9])(A[KS]IA[A-Z2-7]{16})(?![A-Z0-9])"
    ),
    _kind(
        "aws_secret_access_key",
        (b"ecret_access_key", b"ECRET_ACCESS_KEY", b"ecretAccessKey"),
        rb"(?i:ecret_?access_?key)" + _ASSIGNED + rb"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
    ),
    _kind(
        "github_token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        rb"(?<![A-Za-z0-9_])((?:gh[pousr]_[A-Za-z0-9]{36,255})|(?:github_pat_[A-Za-z0-9_]{22,255}))",
    ),
    _kind("gitlab_token", (b"glpat-",), rb"(?<![A-Za-z0-9_-])(glpat-[A-Za-z0-9_.-]{20,255})"),
    _kind("slack_token", (b"xox",), rb"(?<![A-Za-z0-9])(xox[abeoprs]-[A-Za-z0-9-]{10,255})"),
    _kind(
        "google_api_key", (b"AIza",), rb"(?<![A-Za-z0-9])(AIza[A-Za-z0-9_-]{35})(?![A-Za-z0-9_-])"
    ),
    _kind("stripe_key", (b"k_live_",), rb"(?<=[srp])(k_live_[A-Za-z0-9]{20,247})"),
    _kind("npm_token", (b"npm_",), rb"(?<![A-Za-z0-9_])(npm_[A-Za-z0-9]{36})(?![A-Za-z0-9])"),
    _kind(
        "jwt",
        (b"eyJ",),
        rb"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,1024}\.eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{16,1024})",
    ),
    _kind(
        "registry_credential",
        (b'"auth"',),
        rb'"auth"\s{0,8}:\s{0,8}"([A-Za-z0-9+/]{8,1024}={0,2})"',
    ),
    _kind(
        "authorization_header",
        (b"uthorization:", b'uthorization":'),
        rb"uthorization\"?:[ \t]{0,8}\"?(?:Basic|Bearer|Token) ([A-Za-z0-9+/._~=-]{8,4096})",
    ),
    _kind(
        "password_in_url",
        (b"://",),
        rb"(?<=[a-z0-9])://[A-Za-z0-9._~%+-]{0,64}:([^\x00-\x20\x7f-\xff/@:\"'<>{}$%*\\]{3,128})@[A-Za-z0-9\[]",
    ),
    _kind(
        "password",
        (b"assword", b"ASSWORD", b"asswd", b"ASSWD", b"assphrase", b"ASSPHRASE"),
        rb"(?i:ass(?:word|wd|phrase))" + _ASSIGNED + rb"(" + _VALUE + rb")",
        guessed=True,
    ),
    _kind(
        "api_key",
        (b"pi_key", b"PI_KEY", b"piKey", b"pi-key", b"ecret_key", b"ECRET_KEY", b"lient_secret"),
        rb"(?i:pi[_-]?key|ecret_key|lient_secret)" + _ASSIGNED + rb"(" + _VALUE + rb")",
        guessed=True,
    ),
)
# names of variables that hold secrets, whatever the value looks like
SECRET_NAME: Final = re.compile(
    r"(?i)(pass(word|wd|phrase)?|secret|token|credential|api_?key|access_?key|private_?key|auth)(_|\d|$)"
)
_PLAIN_NAME: Final = re.compile(r"(?i)(_file|_path|_dir|_url|_host|_port|_sock|_method|_type)$")
_WORDS: Final = frozenset(
    b"string password passwd required optional changeme undefined default boolean example redacted".split()
)
_DIGITS: Final = re.compile(rb"[0-9]")
_LOWER: Final = re.compile(rb"[a-z]")
_UPPER_OR_SIGN: Final = re.compile(rb"[A-Z!#@^~?+=_-]")


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret that was found: its kind, where it begins, and what it is known again by."""

    kind: str
    offset: int
    digest: bytes


class Search:
    """Finds secrets in bytes that come in pieces; a secret may lie across two of them.

    Args:
        found: is told of each hit.
    """

    def __init__(self, found: Callable[[Hit], None], key: bytes) -> None:
        self._found = found
        self._key = key
        self._buffer = b""
        self._base = 0
        self._from = 0

    def begin(self, offset: int) -> None:
        """What comes next has nothing to do with what came before, and begins at ``offset``."""
        self.end()
        self._buffer, self._base, self._from = b"", offset, 0

    def feed(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._buffer += piece
        limit = len(self._buffer) - LONGEST
        if limit > self._from:
            self._scan(limit)
            cut = max(0, limit - _BEFORE)
            self._buffer, self._base, self._from = (
                self._buffer[cut:],
                self._base + cut,
                limit - cut,
            )

    def end(self) -> None:
        """No more comes."""
        self._scan(len(self._buffer))
        self._base, self._buffer, self._from = self._base + len(self._buffer), b"", 0

    def _scan(self, limit: int) -> None:
        for kind, value in _matches(self._buffer, self._from, limit):
            offset = self._base + value.start(value.lastindex or 0)
            self._found(
                Hit(kind.name, offset, digest(value.group(value.lastindex or 0), self._key))
            )


def new_key() -> bytes:
    """A key for digests; it dies with the report, so that they can't be compared or guessed at."""
    return os.urandom(32)


def digest(value: bytes, key: bytes) -> bytes:
    """What a secret is known again by."""
    return hashlib.blake2b(value, digest_size=16, key=key).digest()


def is_secret_variable(name: str, value: bytes) -> bool:
    """Whether a variable of this name and value holds a secret."""
    if not value or not SECRET_NAME.search(name) or _PLAIN_NAME.search(name):
        return False
    return value.lower() not in _WORDS and not value.startswith((b"/", b"true", b"false"))


def _matches(buffer: bytes, start: int, limit: int) -> Iterator[tuple[Kind, re.Match[bytes]]]:
    """Every secret that begins between ``start`` and ``limit``."""
    for kind in KINDS:
        for anchor in kind.anchors:
            at = buffer.find(anchor, start, limit + len(anchor) - 1)
            while at >= 0:
                match = kind.pattern.match(buffer, at)
                if match and (not kind.guessed or _looks_made(match.group(1))):
                    yield kind, match
                at = buffer.find(anchor, at + len(anchor), limit + len(anchor) - 1)


def _looks_made(value: bytes) -> bool:
    """Whether a value after ``password=`` is more than a word of a program's text."""
    if value.lower().rstrip(b".") in _WORDS:
        return False
    classes = (_DIGITS, _LOWER, _UPPER_OR_SIGN)
    return sum(bool(one.search(value)) for one in classes) >= 2
