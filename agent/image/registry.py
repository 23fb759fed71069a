"""A registry, by the OCI distribution API: blobs, uploads, manifests.

Source: OCI distribution specification v1.1, "Pull", "Push", "Content Management".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

from yarl import URL

from agent.errors import Broken, Refused
from agent.formats import digest
from agent.formats.digest import Digest
from agent.formats.jobs import RegistryAccess
from agent.image import manifest, registry_errors
from agent.image.registry_http import Answer, Ask, Transport


@dataclass(frozen=True, slots=True)
class Upload:
    """A blob that is being uploaded: where its next part goes."""

    repository: str
    url: URL


class Registry:
    """One registry with one login. Every call raises ``registry_errors``' Refused or Retryable."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.host = transport.host

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, access: RegistryAccess, allowed_realms: Iterable[str] = ()
    ) -> AsyncIterator[Registry]:
        """A client for the block.

        Args:
            allowed_realms: hosts besides the registry's own that its token service may be at.
        """
        async with Transport(access, frozenset(allowed_realms)) as transport:
            yield cls(transport)

    async def ping(self) -> None:
        """Return if this is a registry and it takes the login."""
        answer = await self._transport.exchange(Ask("GET", self._transport.url("")))
        if answer.status != 200:
            raise self._wrong(answer)

    async def has_blob(self, repository: str, wanted: Digest) -> bool:
        """Whether the repository has a blob."""
        url = self._transport.url(f"{repository}/blobs/{wanted}")
        answer = await self._transport.exchange(Ask("HEAD", url, _scope(repository, "pull,push")))
        if answer.status not in (200, 404):
            raise self._wrong(answer)
        return answer.status == 200

    async def blob(
        self,
        repository: str,
        wanted: Digest,
        take: Callable[[memoryview], None],
        offset: int = 0,
    ) -> None:
        """Hand the blob's bytes from ``offset`` on to ``take``, unchecked, in a worker thread.

        The buffer that ``take`` gets is used again; what it raises comes out as it is.

        Raises:
            NotFound: the registry does not have it.
        """
        url = self._transport.url(f"{repository}/blobs/{wanted}")
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        surplus = offset

        def part(status: int, chunk: memoryview) -> None:
            nonlocal surplus
            if status == 200 and surplus:  # the registry does not know Range
                chunk, surplus = chunk[surplus:], max(0, surplus - len(chunk))
            if chunk:
                take(chunk)

        answer = await self._transport.receive(Ask("GET", url, _scope(repository), headers), part)
        if answer.status not in (200, 206):
            raise self._wrong(answer)

    async def start_upload(self, repository: str) -> Upload:
        """Begin a blob."""
        url = self._transport.url(f"{repository}/blobs/uploads/")
        answer = await self._transport.exchange(self._push("POST", url, repository, b""))
        if answer.status != 202:
            raise self._wrong(answer)
        return Upload(repository, self._transport.located(answer))

    async def mount(self, repository: str, wanted: Digest, source: str) -> bool:
        """Let the repository have a blob that ``source``, another one here, has; False: not done."""
        path = f"{repository}/blobs/uploads/?mount={wanted}&from={quote(source, safe='')}"
        scope = f"{_scope(repository, 'pull,push')} {_scope(source)}"
        answer = await self._transport.exchange(
            Ask("POST", self._transport.url(path), scope, {}, b"")
        )
        if answer.status == 202:  # it began an ordinary upload instead
            await self.abort(Upload(repository, self._transport.located(answer)))
        elif answer.status != 201:
            raise self._wrong(answer)
        return answer.status == 201

    async def send(self, upload: Upload, chunks: Iterator[bytes]) -> Upload:
        """Stream the blob's next bytes, until ``chunks`` ends; a worker thread takes them."""
        ask = self._push("PATCH", upload.url, upload.repository)
        answer = await self._transport.stream(ask, chunks)
        if answer.status not in (202, 204):
            raise self._wrong(answer)
        return Upload(upload.repository, self._transport.located(answer))

    async def received(self, upload: Upload) -> tuple[Upload, int] | None:
        """Where to go on after a broken ``send``, and how many bytes are there; None: nowhere."""
        answer = await self._transport.exchange(self._push("GET", upload.url, upload.repository))
        first, dash, last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if answer.status != 204 or not dash or first != "0" or not last.isdigit():
            return None
        size = int(last) + 1
        again = upload
        if "Location" in answer.headers:
            again = Upload(upload.repository, self._transport.located(answer))
        # "0-0" is what registries say of an upload that has nothing, too
        return (again, size) if size > 1 else None

    async def finish(self, upload: Upload, wanted: Digest) -> None:
        """End the blob; the registry checks its digest."""
        joint = "&" if upload.url.raw_query_string else "?"
        url = URL(f"{upload.url}{joint}digest={quote(wanted)}", encoded=True)
        answer = await self._transport.exchange(self._push("PUT", url, upload.repository, b""))
        if answer.status != 201:
            raise self._wrong(answer)

    async def abort(self, upload: Upload) -> None:
        """Have the registry forget an unfinished blob."""
        await self._transport.exchange(self._push("DELETE", upload.url, upload.repository))

    async def manifest(self, repository: str, reference: str) -> tuple[bytes, str]:
        """A manifest's bytes and media type; by digest they are checked.

        Raises:
            NotFound: the registry does not have it.
            Refused: its bytes are not those of the digest.
        """
        url = self._transport.url(f"{repository}/manifests/{reference}")
        headers = {"Accept": ", ".join(manifest.ACCEPTED)}
        answer = await self._transport.exchange(Ask("GET", url, _scope(repository), headers))
        if answer.status != 200:
            raise self._wrong(answer)
        if digest.is_digest(reference) and digest.of(answer.body) != reference:
            raise Refused(f"Registry {self.host} gave other bytes for {reference}.")
        return answer.body, answer.headers.get("Content-Type", "").split(";")[0]

    async def put_manifest(self, repository: str, reference: str, body: bytes) -> Digest:
        """Make an image visible as ``reference``; afterwards the registry gives back these bytes.

        Raises:
            Broken: it gives back others.
        """
        url = self._transport.url(f"{repository}/manifests/{reference}")
        headers = {"Content-Type": manifest.MANIFEST_TYPE}
        scope = _scope(repository, "pull,push")
        answer = await self._transport.exchange(Ask("PUT", url, scope, headers, body))
        if answer.status != 201:
            raise self._wrong(answer)
        made = digest.of(body)
        kept, _ = await self.manifest(repository, made)
        if kept != body:
            raise Broken(f"Registry {self.host} changed the manifest {made}.")
        return made

    async def delete_manifest(self, repository: str, wanted: Digest) -> bool:
        """Remove an image; False: it was not there.

        Raises:
            Refused: the registry allows no deleting.
        """
        url = self._transport.url(f"{repository}/manifests/{wanted}")
        answer = await self._transport.exchange(Ask("DELETE", url, _scope(repository, "delete")))
        if answer.status not in (200, 202, 404):
            raise self._wrong(answer)
        return answer.status != 404

    def _push(self, method: str, url: URL, repository: str, body: bytes | None = None) -> Ask:
        headers = {"Content-Type": "application/octet-stream"} if method == "PATCH" else {}
        return Ask(method, url, _scope(repository, "pull,push"), headers, body)

    def _wrong(self, answer: Answer) -> Exception:
        return registry_errors.answered(self.host, answer.status, answer.headers, answer.body)


def _scope(repository: str, actions: str = "pull") -> str:
    return f"repository:{repository}:{actions}"
