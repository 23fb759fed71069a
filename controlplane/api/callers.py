"""Who sent a request, and from where."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from controlplane.api.tickets import Tickets
from controlplane.errors import Unauthenticated
from controlplane.users.service import Session, Users

COOKIE: Final = "token"
_SAFE: Final = frozenset({"GET", "HEAD"})
_PROTOCOL: Final = "bearer."
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Callers:
    """Recognises callers.

    Args:
        tickets: stand for sessions when a WebSocket is opened.
        origins: of web pages that may use the cookie from elsewhere.
        proxies: addresses or networks whose X-Forwarded-For is believed.
    """

    def __init__(
        self, users: Users, tickets: Tickets, origins: Iterable[str], proxies: Iterable[str]
    ) -> None:
        self._users = users
        self.tickets = tickets
        self.origins = frozenset(origin.rstrip("/") for origin in origins)
        self._proxies: list[_Network] = [ipaddress.ip_network(p, strict=False) for p in proxies]

    def address(self, request: web.Request) -> str:
        """The client's address; a trusted proxy's word counts, from the last hop backwards."""
        address = request.remote or ""
        if not self._proxies or not self._is_proxy(address):
            return address
        told = ",".join(request.headers.getall("X-Forwarded-For", []))
        for hop in reversed([part.strip() for part in told.split(",") if part.strip()]):
            if not _is_address(hop):
                break
            address = hop
            if not self._is_proxy(hop):
                break
        return address

    def session(self, request: web.Request) -> Session | None:
        """Who proves by header, cookie or WebSocket protocol who they are; None if nobody tries.

        Raises:
            Unauthenticated: what was shown is worth nothing.
        """
        if is_upgrade(request) and (ticket := request.query.get("ticket")):
            session = self.tickets.redeem(ticket)
        elif token := self._shown(request):
            session = self._users.identify(token)
        else:
            return None
        if session is None:
            raise Unauthenticated("The token is not valid any more; log in again.")
        return session

    def may_use_cookie(self, request: web.Request) -> bool:
        """Whether the page that opened this WebSocket is ours or one that was allowed."""
        origin = request.headers.get("Origin", "").rstrip("/")
        return bool(origin) and (origin in self.origins or urlsplit(origin).netloc == request.host)

    def _shown(self, request: web.Request) -> str | None:
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthenticated("The Authorization header must be: Bearer <token>.")
            return token.strip()
        upgrade = is_upgrade(request)
        if upgrade and (protocol := bearer_protocol(request)):
            return protocol.removeprefix(_PROTOCOL)
        cookie = request.cookies.get(COOKIE) if request.method in _SAFE else None
        if not cookie or (upgrade and not self.may_use_cookie(request)):
            return None
        return cookie

    def _is_proxy(self, address: str) -> bool:
        if not _is_address(address):
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._proxies)


def is_upgrade(request: web.Request) -> bool:
    """Whether the request asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def bearer_protocol(request: web.Request) -> str | None:
    """The WebSocket subprotocol ``bearer.<token>`` among those that the client offers."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    for protocol in offered.split(","):
        if protocol.strip().startswith(_PROTOCOL):
            return protocol.strip()
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
