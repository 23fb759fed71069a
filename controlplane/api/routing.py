"""A route is a record. Sections collect them; ``assembly`` mounts them; ``openapi`` describes them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from controlplane.identity import Role

# handlers take (call, input) or, where the route takes nothing, (call)
Handler = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handler)

BODY_LIMIT_BYTES: Final = 1 << 20
_WITH_BODY: Final = frozenset({"POST", "PUT", "DELETE", "PATCH"})
_PARAMETER: Final = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint.

    Attributes:
        takes: struct of everything that the request may carry: path, query and body together.
        status: of success.
        gives: type of the JSON answer; None when the handler makes its own response.
        needs: the least role; None for what is open to everybody.
        counted: whether a call counts against the rate limit.
        errors: codes that it may answer besides those of every route of its kind.
        query: fields of ``takes`` that a request with a body carries in the query (the body may too, and wins).
        also_query: further such fields, for clients that do it so; required ones are described as optional in both.
        accepts: other statuses of success that are documented (202 for jobs, 206 for ranges).
        media: content type of the answer.
        lenient: any body or none will do, whatever its type.
        streams: the handler reads the body itself: multipart, with one field ``file``.
        audited: calls go to the audit log.
        by_agents: for the holders of a join token, and for nobody else.
    """

    method: str
    path: str
    handler: Handler
    section: str
    takes: type[msgspec.Struct] | None = None
    gives: Any = None
    needs: Role | None = Role.VIEWER
    counted: bool = True
    errors: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    also_query: tuple[str, ...] = ()
    accepts: tuple[int, ...] = ()
    status: int = 200
    media: str = "application/json"
    lenient: bool = False
    streams: bool = False
    audited: bool = False
    by_agents: bool = False
    body_limit_bytes: int = BODY_LIMIT_BYTES

    @property
    def name(self) -> str:
        """Name of the operation."""
        return getattr(self.handler, "__name__", "handler")

    @property
    def summary(self) -> str:
        """First line of the handler's docstring, as plain text."""
        return self._words[0].replace("`", "")

    @property
    def description(self) -> str:
        """The rest of the handler's docstring, as Markdown."""
        return self._words[1].replace("``", "`")

    @property
    def _words(self) -> tuple[str, str]:
        first, _, rest = (inspect.getdoc(self.handler) or "").partition("\n")
        return first.rstrip("."), rest.strip()

    @property
    def path_fields(self) -> tuple[str, ...]:
        """Names of the parameters in the path."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def query_fields(self) -> tuple[str, ...]:
        """Names of the fields that the query may carry."""
        if self.takes is None:
            return ()
        if self.method in _WITH_BODY:
            return self.query
        return tuple(f for f in self.takes.__struct_fields__ if f not in self.path_fields)

    @property
    def methods(self) -> tuple[str, ...]:
        """What it answers: GET also HEAD, as HTTP has it (RFC 9110 section 9.1), but for WebSockets."""
        return ("GET", "HEAD") if self.method == "GET" and self.status != 101 else (self.method,)

    @property
    def body_fields(self) -> tuple[str, ...]:
        """Names of the fields that the body may carry."""
        if self.takes is None or self.method not in _WITH_BODY:
            return ()
        return tuple(f for f in self.takes.__struct_fields__ if f not in self.path_fields)


@dataclass(slots=True)
class Section:
    """The routes of one section of the reference.

    Attributes:
        title: heading in the documentation.
        about: a sentence under it.
    """

    title: str
    about: str = ""
    routes: list[Route] = field(default_factory=list)

    def route(self, method: str, *paths: str, **given: Any) -> Callable[[H], H]:
        """Declare the decorated function as the handler of ``method`` on each of ``paths``.

        Args:
            method: upper case.
            paths: the first is the one that the reference names, the others are its aliases.
            given: further fields of ``Route``.
        """

        def declare(handler: H) -> H:
            for path in paths:
                self.routes.append(
                    Route(method=method, path=path, handler=handler, section=self.title, **given)
                )
            return handler

        return declare
