"""A registry's url as users write it, in parts: ``https://host:port/path``, ``host:port/path``, ``host``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from controlplane.errors import Refused

# Source: github.com/distribution/reference, regexp.go (domain, and path components)
_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_PATH: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+|/)[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """Where a registry is.

    Attributes:
        host: host[:port], in lower case.
        path: below which all its repositories are; no slash at either end.
    """

    host: str
    path: str
    plain_http: bool


def parse(url: str) -> RegistryAddress:
    """The parts of ``url``.

    Raises:
        Refused: it is none, or it carries a user name or a query.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        scheme, rest = "https", url.strip()
    if scheme.lower() not in {"http", "https"}:
        raise Refused("Field `url` must begin with https:// or http://, or be host[:port][/path].")
    host, _, path = rest.partition("/")
    path = path.strip("/")
    path = path.removeprefix("v2/").removesuffix("/v2") if path not in {"v1", "v2"} else ""
    if "@" in host:
        raise Refused("Field `url` must not carry a user name; use `username` and `password`.")
    found = _HOST.fullmatch(host)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        raise Refused("Field `url` names no host: https://host[:port][/path] is expected.")
    if path and not _PATH.fullmatch(path):
        raise Refused("Field `url` has a path that no repository can be in (lower case letters).")
    return RegistryAddress(host.lower(), path, scheme.lower() == "http")
