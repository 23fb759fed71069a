"""A node's work without a node: what is done is a line in a file, so it can be counted after a kill.

Each step can be held (``hold``) and let go (``release``), from this process or another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agent import errors
from agent.formats.jobs import (
    AnalyzeSpec,
    CheckpointId,
    CheckpointResult,
    CheckpointSpec,
    FetchSpec,
    ImportSpec,
    JobId,
    Progress,
    PushResult,
    PushSpec,
    Report,
)
from agent.jobs.steps import Workers
from agent.link.frames import GrantNews, PullAccessNews

MIB = 1 << 20


@dataclass(frozen=True)
class Workshop:
    """The folder where fakes note what they do."""

    folder: Path

    def note(self, line: str) -> None:
        """Add ``line`` to what was done."""
        with (self.folder / "done.log").open("a") as log:
            log.write(line + "\n")

    def notes(self) -> list[str]:
        """What was done so far."""
        log = self.folder / "done.log"
        return log.read_text().splitlines() if log.exists() else []

    def hold(self, step: str) -> None:
        """Let ``step`` begin and not end."""
        (self.folder / f"hold-{step}").touch()

    def release(self, step: str) -> None:
        """Let ``step`` end."""
        (self.folder / f"hold-{step}").unlink(missing_ok=True)

    def fail(self, step: str) -> None:
        """Let ``step`` fail."""
        (self.folder / f"fail-{step}").touch()

    async def passed(self, step: str) -> None:
        """Return when ``step`` may end."""
        self.note(f"{step} begun")
        while (self.folder / f"hold-{step}").exists():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        if (self.folder / f"fail-{step}").exists():
            raise errors.CommandFailed(
                f"{step} failed.", argv=[step], status=1, log_tail="its words"
            )


@dataclass(frozen=True)
class FakeCheckpointer:
    """Dumps that run on by themselves when the agent dies, as the real ones do."""

    shop: Workshop

    async def checkpoint(
        self, job_id: JobId, spec: CheckpointSpec, report: Report
    ) -> tuple[CheckpointResult, ...]:
        running = self._running(job_id)
        running.touch()
        try:
            await self.shop.passed("checkpoint")
        except asyncio.CancelledError:
            running.unlink()
            self.shop.note("checkpoint thawed")
            raise
        report(Progress(100.0, "Dumping memory", MIB, MIB))
        return self._finish(spec)

    async def recover(
        self, job_id: JobId, spec: CheckpointSpec, report: Report
    ) -> tuple[CheckpointResult, ...] | None:
        if not self._running(job_id).exists():
            return None
        await self.shop.passed("recover")
        report(Progress(100.0, "Taking over a dump", MIB, MIB))
        return self._finish(spec)

    def _running(self, job_id: JobId) -> Path:
        return self.shop.folder / f"dump-{job_id}"

    def _finish(self, spec: CheckpointSpec) -> tuple[CheckpointResult, ...]:
        for target in spec.containers:
            (self.shop.folder / target.checkpoint_id).mkdir(exist_ok=True)
            done = f"checkpoint done {target.checkpoint_id}"
            if done not in self.shop.notes():  # else the agent was killed before it wrote it down
                self.shop.note(done)
        return tuple(
            CheckpointResult(
                checkpoint_id=target.checkpoint_id,
                container_name=target.container_name,
                container_id="c0ffee",
                pod_uid="uid",
                engine="runc",
                size_bytes=MIB,
                pause_ms=12.0,
                image_ref="base@sha256:" + "0" * 64,
                created_at="2026-01-01T00:00:00Z",
            )
            for target in spec.containers
        )


@dataclass(frozen=True)
class FakeShelf:
    """Checkpoints are folders."""

    shop: Workshop

    def parts(self, checkpoint_id: CheckpointId) -> Path:
        parts = self.shop.folder / checkpoint_id
        if not parts.is_dir():
            raise errors.NotFound(f"Checkpoint {checkpoint_id} is not on this node.")
        return parts

    def delete(self, checkpoint_id: CheckpointId) -> bool:
        parts = self.shop.folder / checkpoint_id
        if not parts.is_dir():
            return False
        parts.rmdir()
        self.shop.note(f"deleted {checkpoint_id}")
        return True

    def count(self) -> int:
        return 0


@dataclass(frozen=True)
class FakePusher:
    """Pushes are notes."""

    shop: Workshop

    async def push(self, parts: Path, spec: PushSpec, report: Report) -> PushResult:
        await self.shop.passed("push")
        report(Progress(50.0, f"Pushing {parts.name}", MIB // 2, MIB))
        image = f"{spec.registry.host}/{spec.repository}:{spec.tag}"
        self.shop.note(f"push done {image}")
        digest = "sha256:" + "1" * 64
        return PushResult(spec.checkpoint_id, image, digest, MIB, MIB, 1.0)


@dataclass(frozen=True)
class FakeFetcher:
    """Fetches are notes."""

    shop: Workshop

    async def fetch(self, spec: FetchSpec, report: Report) -> None:
        await self.shop.passed("fetch")
        report(Progress(100.0, "Fetching", MIB, MIB))
        self.shop.note(f"fetch done {spec.image}")


@dataclass(frozen=True)
class FakeAnalyst:
    """Analyses are notes."""

    shop: Workshop

    async def analyze(self, spec: AnalyzeSpec, report: Report) -> str:
        await self.shop.passed("analyze")
        report(Progress(50.0, "Analyzing"))
        self.shop.note(f"analyze done {spec.checkpoint_id}")
        return f'{{"of":"{spec.checkpoint_id}"}}'


@dataclass(frozen=True)
class FakeImporter:
    """Archives become folders."""

    shop: Workshop

    async def take(self, spec: ImportSpec, report: Report) -> None:
        await self.shop.passed("import")
        report(Progress(50.0, "Taking the archive in"))
        (self.shop.folder / spec.checkpoint_id).mkdir(exist_ok=True)
        self.shop.note(f"import done {spec.checkpoint_id}")


@dataclass(frozen=True)
class FakePreparer:
    """Preparations are notes."""

    shop: Workshop

    async def prepare(self, report: Report) -> None:
        await self.shop.passed("prepare")
        report(Progress(50.0, "Installing the runtime wrapper"))
        self.shop.note("prepare done")

    async def undo(self, report: Report) -> None:
        await self.shop.passed("undo")
        self.shop.note("undo done")


def workers(shop: Workshop) -> Workers:
    """All of them."""
    return Workers(
        checkpointer=FakeCheckpointer(shop),
        shelf=FakeShelf(shop),
        pusher=FakePusher(shop),
        fetcher=FakeFetcher(shop),
        analyst=FakeAnalyst(shop),
        importer=FakeImporter(shop),
        preparer=FakePreparer(shop),
    )


@dataclass(frozen=True)
class FakeArchive:
    """Bytes in memory as an archive."""

    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        end = offset + length if length else len(self.content)
        for at in range(offset, min(end, len(self.content)), 1000):
            yield self.content[at : min(at + 1000, end)]


class FakeArchives:
    """Archives by checkpoint."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    @contextlib.asynccontextmanager
    async def open(self, checkpoint_id: CheckpointId) -> AsyncIterator[FakeArchive]:
        if checkpoint_id not in self.contents:
            raise errors.NotFound(f"Checkpoint {checkpoint_id} is not on this node.")
        yield FakeArchive(self.contents[checkpoint_id])

    @contextlib.asynccontextmanager
    async def open_image(self, image_digest: str) -> AsyncIterator[FakeArchive]:
        if image_digest not in self.contents:
            raise errors.NotFound(f"The image {image_digest} is not in this node's cache.")
        yield FakeArchive(self.contents[image_digest])


class FakeTrust:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.key = b""
        self.grant_news: list[GrantNews] = []
        self.access_news: list[PullAccessNews] = []

    async def grants(self, news: GrantNews, key: bytes | None = None) -> None:
        self.key = key or self.key
        self.grant_news.append(news)

    async def pull_access(self, news: PullAccessNews) -> None:
        self.access_news.append(news)
