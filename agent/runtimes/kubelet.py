"""The node's own kubelet, asked over HTTPS for checkpoints; it takes ``nodes/checkpoint`` create, nothing more.

Source: Kubernetes, "Kubelet Checkpoint API": POST /checkpoint/{namespace}/{pod}/{container}?timeout=<s>
answers 200 ``{"items": ["<path>"]}``; the archives' names are those of kubelet 1.37
(CheckpointContainer), which never deletes them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from agent import errors
from agent.runtimes import kubelet_errors
from agent.runtimes.kubelet_errors import Answer, Gate, NoToken

URL_HERE: Final = "https://127.0.0.1:10250"
FOLDER: Final = "/var/lib/kubelet/checkpoints"  # Source: the kubelet's root directory
OWN_CERTIFICATE: Final = "/var/lib/kubelet/pki/kubelet.crt"  # of one that signs itself: leaf and CA
SLACK_S: Final = (
    60.0  # the runtime keeps the timeout that is passed on; its tar is written after it
)
_NO_POD: Final = ("snap-probe", "no-such-pod", "none")
_CONNECT_S: Final = 5.0
_PROBE_S: Final = 10.0
_MOST_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Access:
    """How the kubelet is reached.

    Attributes:
        node: whom its certificate may be for when ``url`` names an address.
        token: gives the service account's token; called each time, for the kubelet renews it. Blocks.
        ca_files: PEM files of who may have signed its certificate; missing ones are left out.
        verify: whether its certificate is looked at.
    """

    url: str
    node: str
    token: Callable[[], str] = field(repr=False)
    ca_files: tuple[Path, ...] = ()
    verify: bool = True


class Kubelet:
    """The kubelet of this node. Every call has a connection of its own: they are rare."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def checkpoint(self, namespace: str, pod: str, container: str, timeout_s: float) -> str:
        """Have a container checkpointed; returns the archive's path on the node.

        Raises:
            NotFound: no such pod or container. Refused: it may not be asked, or does not do this.
            CommandFailed: the dump failed, in the runtime's own words.
            Retryable: it is away or too slow.
        """
        wanted = namespace, pod, container
        query = {"timeout": str(math.ceil(timeout_s))}
        try:
            answer = await self._post(wanted, query, timeout_s + SLACK_S)
        except kubelet_errors.FAILURES as cause:
            raise kubelet_errors.unanswered(cause, self._access.url) from cause
        if answer.status != 200:
            raise kubelet_errors.refused(answer, wanted)
        return _path(answer)

    async def gate(self) -> tuple[Gate, str]:
        """Whether it takes checkpoints, by asking for one of a pod that can't be; and its own words."""
        try:
            answer = await self._post(_NO_POD, {}, _PROBE_S)
        except kubelet_errors.FAILURES as cause:
            return kubelet_errors.gate_without_answer(cause), str(cause)[:300]
        return kubelet_errors.gate_of(answer), answer.text[:300]

    async def _post(
        self, wanted: tuple[str, str, str], query: Mapping[str, str], within_s: float
    ) -> Answer:
        """What it answers. Raises what ``kubelet_errors.FAILURES`` names."""
        url = URL(self._access.url).joinpath("checkpoint", *wanted).with_query(query)
        names = _expected_names(self._access, url)
        for name in names[:-1]:
            try:
                return await self._post_to(url, name, within_s)
            except aiohttp.ClientConnectorCertificateError:
                continue  # of the same node under its other name, perhaps
        return await self._post_to(url, names[-1], within_s)

    async def _post_to(self, url: URL, name: str | None, within_s: float) -> Answer:
        token, tls = await asyncio.to_thread(lambda: (_token(self._access), _tls(self._access)))
        limits = aiohttp.ClientTimeout(total=within_s, sock_connect=_CONNECT_S)
        jar = aiohttp.DummyCookieJar()
        async with (
            aiohttp.ClientSession(timeout=limits, cookie_jar=jar) as http,
            http.post(
                url,
                headers={"Authorization": f"Bearer {token}"},
                ssl=tls,
                server_hostname=name,
                allow_redirects=False,
            ) as response,
        ):
            body = await response.content.read(_MOST_BYTES)
            return Answer(response.status, body.decode(errors="replace").strip())


def _token(access: Access) -> str:
    try:
        token = access.token()
    except OSError as cause:
        raise NoToken(f"{cause.filename}: {cause.strerror}") from cause
    if not token or not token.isascii() or not token.isprintable():
        raise NoToken("what is in its file is none")
    return token


def _tls(access: Access) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not access.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    for file in access.ca_files:
        try:
            context.load_verify_locations(file)
        except OSError:  # not there, or no certificate in it: nobody is trusted by it then
            continue
    if not context.cert_store_stats()["x509_ca"]:
        context.load_default_certs()
    return context


def _expected_names(access: Access, url: URL) -> tuple[str | None, ...]:
    """Whom the certificate may be for, None: for whom the address names.

    No kubelet's is for a loopback address, and one that signed itself has only its node's name.
    """
    if url.host == "localhost":
        return (access.node,)
    try:
        address = ipaddress.ip_address(url.host or "")
    except ValueError:
        return (None,)
    return (access.node,) if address.is_loopback else (None, access.node)


def _path(answer: Answer) -> str:
    try:
        (path,) = json.loads(answer.text)["items"]
    except (ValueError, KeyError, TypeError) as cause:
        message = "The kubelet made a checkpoint but does not say where it is."
        raise errors.Broken(
            message, code=errors.CHECKPOINT_FAILED, details=answer.text[:300]
        ) from cause
    return str(path)


@dataclass(frozen=True, slots=True)
class ArchiveNames:
    """What the kubelet calls the archives of one container."""

    namespace: str
    pod: str
    container: str

    def begun_between(self, folder: Path, begin_s: float, end_s: float) -> tuple[Path, ...]:
        """Those in ``folder`` whose names hold a time between the two (since the epoch). Blocks."""
        start = re.escape(f"checkpoint-{self.pod}_{self.namespace}-{self.container}-")
        name = re.compile(rf"{start}(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d))\.tar")
        found = []
        for path in folder.iterdir() if folder.is_dir() else ():
            if matched := name.fullmatch(path.name):
                at_s = datetime.fromisoformat(matched[1]).timestamp()
                if int(begin_s) <= at_s <= end_s:  # the names have whole seconds
                    found.append(path)
        return tuple(found)
