"""The gRPC server that agents dial: TLS always, its certificate exchangeable while it runs."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable
from typing import Final

import grpc
import grpc.aio

from controlplane.errors import Broken
from controlplane.link.certificates import Certificate
from controlplane.link.wire import calls
from controlplane.settings import Address

WINDOW_BYTES: Final = 8 << 20  # of an archive under way: 120 MiB/s over a line of 40 ms
OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # agents ping every 20 s; a server that was not told so would hang up on them
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # gRPC would measure each connection by a ping after news that came, which costs as much as reading them
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.max_send_message_length", 32 << 20),
    ("grpc.so_reuseport", 0),  # a second server on the port is a mistake that must be seen
)
_log = logging.getLogger(__name__)


class ServedCertificate:
    """The certificate that new connections get; ``reload`` brings in what changed on disk.

    Args:
        load: reads (or renews) it; blocks.
    """

    def __init__(self, load: Callable[[], Certificate]) -> None:
        self._load = load
        self._current = load()
        self._given: Certificate | None = None

    @property
    def ca_pem(self) -> str:
        """Whom agents should trust."""
        return self._current.ca_pem.decode()

    def reload(self) -> bool:
        """Read it again; whether it changed. A certificate that can't be used is not taken. Blocks."""
        try:
            fresh = self._load()
        except Broken as failure:
            _log.error("the certificate for agents stays as it was: %s", failure.message)
            return False
        changed = fresh != self._current
        self._current = fresh
        return changed

    def credentials(self) -> grpc.ServerCredentials:
        """What the server listens with; asks for the current certificate at each handshake."""
        self._given = self._current
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._given),
            self._fetch,  # type: ignore[arg-type]  # None is allowed: "as before"
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        if self._current == self._given:
            return None  # as before
        self._given = self._current
        return _configuration(self._given)


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificate.key_pem, certificate.chain_pem)])


def _allow_connections() -> None:
    """As many open files as this process may have: each agent holds one; the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.info("at most %d open files, one for each agent and each user's connection", hard)


async def listen(
    address: Address, certificate: ServedCertificate, handlers: calls.Handlers
) -> grpc.aio.Server:
    """Start answering agents on ``address``; the caller stops the server.

    Raises:
        Broken: the address can't be listened on.
    """
    _allow_connections()
    server = grpc.aio.server(options=OPTIONS)
    calls.serve(server, handlers)
    try:
        server.add_secure_port(str(address), certificate.credentials())
    except RuntimeError as cause:
        raise Broken(
            f"SNAP_GRPC_ADDR: {address} can't be listened on; is another program there?",
            details=str(cause),
        ) from cause
    await server.start()
    _log.info("agents can dial %s", address)
    return server
