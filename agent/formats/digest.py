"""Content digests as OCI writes them.

Source: OCI image specification, descriptor.md, "Digests".
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NewType

Digest = NewType("Digest", str)
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is a sha256 digest in OCI's form."""
    return _SHA256.fullmatch(text) is not None


def parse(text: str) -> Digest:
    """The digest that ``text`` spells.

    Raises:
        ValueError: it spells none.
    """
    if not is_digest(text):
        raise ValueError(f"{text[:80]!r} is not a sha256 digest")
    return Digest(text)


def of(content: bytes) -> Digest:
    """The digest of ``content``."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())
