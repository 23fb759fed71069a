"""Checkpoints, from the job's names to finished folders of parts; the entry point of this package."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import errors
from agent.checkpoint import (
    base_image,
    indirect,
    inspection,
    kubelet_engine,
    linked,
    parts,
    plan,
    targets,
    window,
)
from agent.checkpoint.inspection import Inspected
from agent.checkpoint.kubelet_engine import Kubelet
from agent.checkpoint.parts import NodeFacts, Origin
from agent.checkpoint.plan import Dump, DumpTarget, Folder
from agent.checkpoint.retention import FREE_FLOOR
from agent.checkpoint.scratch import Scratch
from agent.checkpoint.shelf import Shelf, check_id
from agent.formats import layout, record, template
from agent.formats.jobs import (
    CheckpointId,
    CheckpointResult,
    CheckpointSpec,
    JobId,
    Progress,
    Report,
)
from agent.formats.record import CheckpointRecord
from agent.runtimes import commands
from agent.runtimes.commands import Host

_DUMPING: Final = "Dumping"
_SETTLE_S: Final = 3600.0  # for file changes of any size; only a cancelled job waits for its end
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """What the service works with.

    Attributes:
        facts: what is known of the node now.
        is_arriving: whether the memory of a container (by id) is still being brought to it.
        kubelet: the node's; None where there is none.
        scratch: memory that dumps may use; None: they go to the disk.
        free_floor: share of the whole disk that a dump leaves free.
    """

    host: Host
    data_dir: str
    runtime: targets.Runtime
    facts: Callable[[], NodeFacts]
    shelf: Shelf
    is_arriving: Callable[[str], bool] = lambda _: False
    kubelet: Kubelet | None = None
    scratch: Scratch | None = None
    free_floor: float = FREE_FLOOR


class CheckpointService:
    """Takes checkpoints, and takes over those that an agent before this one had begun.

    A container that was touched runs again when a call ends, however it ends.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._scratch = ports.scratch or Scratch(ports.host, ports.shelf, 0)
        self._active: set[str] = set()

    @property
    def active(self) -> frozenset[str]:
        """The jobs that are being worked on here."""
        return frozenset(self._active)

    async def checkpoint(
        self, job_id: JobId, spec: CheckpointSpec, report: Report
    ) -> tuple[CheckpointResult, ...]:
        """Checkpoint every container of ``spec``, all frozen together.

        After a failure, or when cancelled, nothing of it is left on the disk.

        Raises:
            Refused: it can't be dumped as it is; nothing was frozen. NotFound: it is not here.
            CommandFailed: the dump failed, with CRIU's cause.
            Retryable: it took too long, or the container runtime was away.
            Broken: a container stays frozen; a person must look.
        """
        with self._working_on(job_id):
            report(Progress(0, "Looking at the containers"))
            inspected = await self._inspect(spec)
            engine = indirect.choose(spec, inspected, self._ports.facts().engines)
            for one in inspected:
                linked.refuse(engine, one.found.name, one.behind_links)
            await self._check_room(engine, inspected)
            dump = _dump(job_id, spec, inspected, engine, self._ports.facts())
            folder = Folder(self._ports.host, self._ports.data_dir, job_id)
            if folder.here.exists():
                raise errors.Refused(f"Job {job_id} was begun already.", code=errors.CONFLICT)
            try:
                words = await self._begin(folder, dump, inspected)
                return await self._finish(folder, dump, report, words)
            except BaseException:
                await commands.finish(asyncio.to_thread(self._discard, folder, dump), _SETTLE_S)
                raise

    async def recover(
        self, job_id: JobId, spec: CheckpointSpec, report: Report
    ) -> tuple[CheckpointResult, ...] | None:
        """Finish what an agent that died had begun for ``job_id``, by what is really on the disk.

        A dump that still runs is waited for, one that is done is made a checkpoint.

        Returns:
            None when nothing had been started: the job can be done as if it were new.

        Raises:
            as ``checkpoint``; Retryable when the dump was interrupted (its container runs on).
        """
        with self._working_on(job_id):
            folder = Folder(self._ports.host, self._ports.data_dir, job_id)
            dump = folder.read()
            if dump is None:
                return await asyncio.to_thread(self._results_or_nothing, folder, spec)
            started = folder.process() or folder.result()
            if not started and dump.engine == "runc":
                await asyncio.to_thread(self._discard, folder, dump)
                return None
            try:
                if dump.engine != "runc":
                    await window.close(folder, dump)
                    await asyncio.to_thread(kubelet_engine.clear, folder, dump)
                    raise _interrupted()
                return await self._finish(folder, dump, report)
            except BaseException:
                await commands.finish(asyncio.to_thread(self._discard, folder, dump), _SETTLE_S)
                raise

    async def sweep(self) -> None:
        """Undo every dump that no job of this agent works on: thawed, and its halves removed.

        For the start, after all jobs were recovered.
        """
        for folder in list(plan.folders(self._ports.host, self._ports.data_dir)):
            if folder.here.name in self._active:
                continue
            if dump := folder.read():
                await window.close(folder, dump)
                await asyncio.to_thread(kubelet_engine.clear, folder, dump)
                for target in dump.targets:
                    await asyncio.to_thread(self._drop_unfinished, target)
            await asyncio.to_thread(window.forget, folder)

    def _discard(self, folder: Folder, dump: Dump) -> None:
        for target in dump.targets:
            self._scratch.leave(CheckpointId(target.checkpoint_id))
        window.discard(folder, dump)

    def _drop_unfinished(self, target: DumpTarget) -> None:
        found = self._record(CheckpointId(target.checkpoint_id))
        if not (found and found.complete):
            self._ports.shelf.delete(CheckpointId(target.checkpoint_id))

    @contextmanager
    def _working_on(self, job_id: JobId) -> Iterator[None]:
        check_id(job_id)
        if job_id in self._active:
            raise errors.Refused(f"Job {job_id} is being worked on.", code=errors.CONFLICT)
        self._active.add(job_id)
        try:
            yield
        finally:
            self._active.discard(job_id)

    async def _inspect(self, spec: CheckpointSpec) -> tuple[Inspected, ...]:
        host = self._ports.host
        for target in spec.containers:
            check_id(target.checkpoint_id)
            if self._ports.shelf.place(target.checkpoint_id).exists():
                message = f"Checkpoint {target.checkpoint_id} is on this node already."
                raise errors.Refused(message, code=errors.CONFLICT)
        found = await targets.find(self._ports.runtime, spec)
        for one in found:
            if self._ports.is_arriving(one.id):
                raise errors.Refused(
                    f"Container {one.name} was restored a moment ago and its memory is still "
                    "arriving; try again in a few seconds."
                )
        inspected = tuple([await inspection.inspect(host, one, spec) for one in found])
        await inspection.refuse_shared_sysv(host, inspected)
        return inspected

    async def _check_room(self, engine: str, inspected: tuple[Inspected, ...]) -> None:
        copies = 1 if engine == "runc" else 2  # others write images first, and then their archive
        host, data_dir = self._ports.host, self._ports.data_dir
        floor = self._ports.free_floor
        await asyncio.to_thread(
            inspection.check_room, host, data_dir, inspected, copies=copies, free_floor=floor
        )

    async def _begin(self, folder: Folder, dump: Dump, inspected: tuple[Inspected, ...]) -> str:
        """Write down what is going to be dumped, and all that is known of it; returns what to say of it."""
        facts = self._ports.facts()
        for target, one in zip(dump.targets, inspected, strict=True):
            place = self._ports.shelf.place(CheckpointId(target.checkpoint_id))
            names = await base_image.names(self._ports.runtime, one.found.detail)
            origin = Origin(dump.job_id, dump.engine, facts, names, dump.leave_running)
            await asyncio.to_thread(window.prepare_parts, folder, target)
            await asyncio.to_thread(parts.begin, place, origin, one)
        words = _DUMPING
        if dump.engine == "runc":
            wanted = {CheckpointId(t.checkpoint_id): t.memory_bytes for t in dump.targets}
            if short := await self._scratch.take(wanted):
                words = f"{_DUMPING} to the disk; in memory: {short}"
        await asyncio.to_thread(folder.write, dump)
        return words

    async def _finish(
        self, folder: Folder, dump: Dump, report: Report, words: str = _DUMPING
    ) -> tuple[CheckpointResult, ...]:
        """Dump, or wait for the dump that runs; then make checkpoints of what it left."""
        if dump.engine == "runc":
            pause_ms = await self._run_script(folder, dump, report, words)
        else:
            pause_ms = await self._ask_others(folder, dump, report)
        report(Progress(80, "Putting the checkpoint together"))
        for target in dump.targets:
            place = self._ports.shelf.place(CheckpointId(target.checkpoint_id))
            await commands.finish(asyncio.to_thread(parts.settle, place, pause_ms), _SETTLE_S)
            self._scratch.settled(target.checkpoint_id)
        results = await asyncio.to_thread(self._results, dump)
        await asyncio.to_thread(window.forget, folder)
        report(Progress(100, "Checkpoint is on the node"))
        return results

    async def _run_script(
        self, folder: Folder, dump: Dump, report: Report, words: str
    ) -> float | None:
        look = _Look(folder, dump, report, words)
        report(Progress(10, words))
        async with window.opened(folder, dump) as running:
            result = await running.wait(look)
        return result.pause_ms if dump.pauses else None

    async def _ask_others(self, folder: Folder, dump: Dump, report: Report) -> float:
        askers = indirect.Askers(self._ports.runtime, self._ports.kubelet)
        return await indirect.dump(askers, folder, dump, self._place, report)

    def _place(self, target: DumpTarget) -> Path:
        return self._ports.shelf.place(CheckpointId(target.checkpoint_id))

    def _record(self, checkpoint_id: CheckpointId) -> CheckpointRecord | None:
        try:
            return record.read(self._ports.shelf.place(checkpoint_id))
        except (FileNotFoundError, ValueError):
            return None

    def _results(self, dump: Dump) -> tuple[CheckpointResult, ...]:
        return tuple(self._result(CheckpointId(target.checkpoint_id)) for target in dump.targets)

    def _results_or_nothing(
        self, folder: Folder, spec: CheckpointSpec
    ) -> tuple[CheckpointResult, ...] | None:
        """Results when all was done before the agent died; else the halves are removed."""
        window.forget(folder)
        ids = [target.checkpoint_id for target in spec.containers]
        known = [self._record(one) for one in ids]
        if ids and all(one and one.complete for one in known):
            return tuple(self._result(one) for one in ids)
        for one in ids:
            self._ports.shelf.delete(one)
        return None

    def _result(self, checkpoint_id: CheckpointId) -> CheckpointResult:
        found = self._ports.shelf.get(checkpoint_id)
        place = self._ports.shelf.place(checkpoint_id)
        return CheckpointResult(
            checkpoint_id=checkpoint_id,
            container_name=found.container_name,
            container_id=found.container_id,
            pod_uid=found.pod_uid,
            engine=found.engine,
            size_bytes=found.size_bytes,
            pause_ms=found.pause_ms,
            image_ref=found.image_ref,
            created_at=found.created_at,
            fingerprint_json=(place / layout.FINGERPRINT).read_text(),
            criu_options=found.criu_options,
            template_json=template.encode(template.without_secrets(template.read(place))).decode(),
            warnings=found.warnings,
            revision=found.revision,
            left_running=found.left_running,
        )


class _Look:
    """Tells how much of the memory is on the disk; a look at a few files, so it never blocks."""

    def __init__(self, folder: Folder, dump: Dump, report: Report, words: str) -> None:
        self._images = [
            folder.host.path(folder.parts(target)) / layout.CHECKPOINT_DIR
            for target in dump.targets
        ]
        self._total = sum(target.memory_bytes for target in dump.targets)
        self._report, self._words = report, words

    def __call__(self) -> None:
        done = sum(p.stat().st_size for d in self._images for p in d.glob("pages-*.img"))
        percent = 10 + 70 * min(done / self._total, 1) if self._total else 10
        self._report(Progress(percent, self._words, done, max(self._total, done)))


def _dump(
    job_id: JobId,
    spec: CheckpointSpec,
    inspected: tuple[Inspected, ...],
    engine: str,
    facts: NodeFacts,
) -> Dump:
    unread = facts.oci_runtime == "runc" and plan.may_leave_cgroups(
        facts.cgroup_version, facts.oci_runtime_version
    )
    listed = tuple(
        DumpTarget(
            checkpoint_id=one.found.target.checkpoint_id,
            container_id=one.found.id,
            container_name=one.found.name,
            binary=one.oci.binary if one.oci else "",
            root=one.oci.root if one.oci else "",
            pid=one.found.detail.pid,
            memory_bytes=one.memory_bytes,
            was_paused=one.was_paused,
            copies=one.copies if engine == "runc" else (),
            watched=one.watched,
            criu_options=linked.options(one.behind_links),
            leave_cgroups=unread,
        )
        for one in inspected
    )
    return Dump(
        job_id=job_id,
        engine=engine,
        timeout_s=spec.timeout_s,
        leave_running=spec.leave_running,
        targets=listed,
        namespace=spec.namespace,
        pod_name=spec.pod_name,
    )


def _interrupted() -> errors.Retryable:
    return errors.Retryable(
        "The dump was interrupted when the agent stopped; the container runs on. Ask again.",
        code=errors.CHECKPOINT_FAILED,
    )
