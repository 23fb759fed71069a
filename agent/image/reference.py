"""Names of images, and which credentials go with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from agent.errors import VALIDATION_ERROR, Refused
from agent.formats import digest
from agent.formats.digest import Digest
from agent.formats.jobs import RegistryAccess

# Source: OCI distribution specification, "Pulling manifests"
_REPOSITORY: Final = re.compile(
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9.-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """``<host>/<repository>@<digest>``."""

    host: str
    repository: str
    digest: Digest

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference that ``text`` spells.

        Raises:
            Refused: it spells none, or has a tag instead of a digest.
        """
        name, at, wanted = text.partition("@")
        host, slash, repository = name.partition("/")
        if not (at and slash and digest.is_digest(wanted) and _HOST.fullmatch(host)):
            raise Refused(
                f"{text[:200]!r} does not name an image by its digest "
                "(<registry>/<repository>@sha256:…).",
                code=VALIDATION_ERROR,
            )
        check_repository(repository)
        return cls(host, repository, digest.parse(wanted))

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}@{self.digest}"


def check_repository(repository: str) -> None:
    """Raise Refused unless registries accept ``repository`` as a name."""
    if len(repository) > 255 or not _REPOSITORY.fullmatch(repository):
        raise Refused(f"{repository[:260]!r} is no repository name.", code=VALIDATION_ERROR)


def check_tag(tag: str) -> None:
    """Raise Refused unless registries accept ``tag``."""
    if not _TAG.fullmatch(tag):
        raise Refused(f"{tag[:140]!r} is no tag.", code=VALIDATION_ERROR)


class Keychain:
    """Credentials of several registries; the longest host and prefix that fits wins."""

    def __init__(self, entries: Iterable[RegistryAccess] = ()) -> None:
        self._entries = tuple(entries)

    def access(self, host: str, repository: str) -> RegistryAccess | None:
        """How to reach ``host/repository``; None when nothing is known of it."""
        fitting = [
            entry
            for entry in self._entries
            if entry.host == host and _within(repository, entry.repository_prefix)
        ]
        return max(fitting, key=lambda entry: len(entry.repository_prefix), default=None)


def _within(repository: str, prefix: str) -> bool:
    prefix = prefix.strip("/")
    return not prefix or repository == prefix or repository.startswith(prefix + "/")
