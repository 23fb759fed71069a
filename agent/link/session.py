"""Keeping a session with the control plane: dial, hold, wait, dial again."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc.aio

from agent import cancellation, errors
from agent.link.backoff import Backoff
from agent.link.conversation import HANDSHAKE_S, Conversation, Ended, Member, Rooms

log = logging.getLogger(__name__)

STABLE_S: Final = 10.0  # a session that lived so long was a good one
REMIND_S: Final = 300.0  # how often a failure that goes on is said again
WINDOW_BYTES: Final = 8 << 20  # of an archive that comes here: 120 MiB/s over a line of 40 ms
# a silent network is noticed after 20 + 10 s: within the 30 s that the control plane counts on
OPTIONS: Final = (
    # a dead line is found by a status each 10 s and the timeout, which gRPC makes TCP_USER_TIMEOUT too; pings that
    # often would be a quarter of what agents at rest cost (ADR 0010)
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # no pings that measure the line after each word of the control plane, which has thousands to answer
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.max_send_message_length", 32 << 20),
    # each try has its own connection: gRPC's own back-off must not add to ours
    ("grpc.use_local_subchannel_pool", 1),
    # as long as for the rest of the handshake: gRPC's own 20 s would cut TLS off where thousands dial at once
    ("grpc.min_reconnect_backoff_ms", int(HANDSHAKE_S * 1000)),
    # proxies are for registries; the control plane is reached as it is named
    ("grpc.enable_http_proxy", 0),
)
# Source: BoringSSL's and gRPC's words
_BAD_CERTIFICATE: Final = (
    "CERTIFICATE_VERIFY_FAILED",
    "certificate signature failure",
    "certificate verify failed",
    "Hostname Verification Check failed",
    "not in peer certificate",
)
_REFUSALS: Final = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


@dataclass(frozen=True, slots=True)
class Dialling:
    """How the control plane is reached.

    Attributes:
        target: host:port.
        ca_file: PEM; None: the system's CAs. Read at each dial, it may be renewed.
        token: gives the join token; called at each dial, it may be renewed. Blocks.
    """

    target: str
    ca_file: Path | None
    token: Callable[[], str]


class Session:
    """The link. ``run`` it; ``is_up`` says whether the control plane hears us."""

    def __init__(self, dialling: Dialling, member: Member, rooms: Rooms) -> None:
        self._dialling = dialling
        self._member = member
        self._rooms = rooms
        self._backoff = Backoff()
        self._held: Conversation | None = None
        self._said = ("", 0.0)

    @property
    def is_up(self) -> bool:
        """Whether a session is open."""
        return self._held is not None and self._held.welcomed.is_set()

    @property
    def conversation(self) -> Conversation | None:
        """The open session, if there is one."""
        return self._held if self.is_up else None

    async def run(self) -> None:
        """Hold one session after the other until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            wait = await self._once()
            cancellation.heed()
            if self._held is not None:
                if self._held.welcomed.is_set() and loop.time() - began >= STABLE_S:
                    self._backoff.reset()
                    wait = self._backoff.next_s()
                self._held = None
            await asyncio.sleep(wait)

    async def _once(self) -> float:
        """Try one session, and return how long to wait after it, in seconds."""
        try:
            token, credentials = await asyncio.to_thread(self._read_files)
            async with grpc.aio.secure_channel(
                self._dialling.target, credentials, options=OPTIONS
            ) as channel:
                self._held = Conversation(channel, token, self._member, self._rooms)
                await self._held.hold()
        except grpc.aio.AioRpcError as broken:
            if broken.code() in _REFUSALS:
                self._complain(f"the control plane refused this node: {broken.details()}")
                return self._backoff.refused_s()
            self._complain(f"no link to {self._dialling.target}: {why(broken)}")
        except Ended as end:
            self._complain(f"the session ended: {end}")
        except errors.SnapError as failure:
            self._complain(f"the session was given up: {failure.message}")
        except OSError as failure:
            self._complain(f"can't dial the control plane: {failure}")
        return self._backoff.next_s()

    def _read_files(self) -> tuple[str, grpc.ChannelCredentials]:
        ca = self._dialling.ca_file
        pem = ca.read_bytes() if ca else None
        return self._dialling.token(), grpc.ssl_channel_credentials(root_certificates=pem)

    def _complain(self, sentence: str) -> None:
        """Say it once, and again from time to time while it goes on."""
        now = asyncio.get_running_loop().time()
        was, since = self._said
        held = self._held is not None and self._held.welcomed.is_set()
        if held or sentence != was or now - since > REMIND_S:
            log.warning("%s", sentence)
            self._said = (sentence, now)
        else:
            log.debug("%s", sentence)


def why(broken: grpc.aio.AioRpcError) -> str:
    """What ``broken`` means, in a sentence for the log."""
    details = broken.details() or broken.code().name
    if any(sign in details for sign in _BAD_CERTIFICATE):
        return "its certificate is not signed by the CA in SNAP_CA_FILE, or is for another name"
    if "WRONG_VERSION_NUMBER" in details or "UNEXPECTED_MESSAGE" in details:
        return "what answers there does not speak TLS"
    if "onnection refused" in details:
        return "nobody listens there (connection refused)"
    if "DNS" in details or "Name resolution" in details:
        return "its name can't be resolved"
    return re.sub(r"\s+", " ", details)[:300]


def read_token(file: Path | None, given: str) -> str:
    """The join token: from ``file`` if there is one, else as ``given``. Blocks.

    Raises:
        OSError: the file can't be read.
        Refused: what is there is no token; gRPC could not send it.
    """
    token = file.read_text(errors="replace").strip() if file else given
    if not all("!" <= letter <= "~" for letter in token):
        where = str(file) if file else "SNAP_AGENT_TOKEN"
        raise errors.Refused(f"What is in {where} is no token; put the one there that was issued.")
    return token
