"""Insights: what a checkpoint holds, read on its node from CRIU's own images, in both dialects."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from controlplane.api.calls import Call, Reply
from controlplane.api.fields import LINE_PATTERN, PodName
from controlplane.api.jobs import outcome
from controlplane.api.routing import Section
from controlplane.checkpoints import reports
from controlplane.checkpoints.analysis import Analysis, AnalysisCommand
from controlplane.identity import Role
from controlplane.store.records import Checkpoint, Job

SECTION: Final = Section("Insights", "What a checkpoint holds.")
_FOLDER: Final = "/app/checkpoints"  # a label that clients know; nothing is ever opened there
_ERRORS: Final = (
    "CHECKPOINT_NOT_FOUND",
    "NODE_NOT_FOUND",
    "PERMISSION_DENIED",
    "CONFLICT",
    "CHECKPOINT_REFUSED",
    "INTERNAL_ERROR",
    "AGENT_UNAVAILABLE",
    "TIMEOUT",
    "INSUFFICIENT_STORAGE",
)
# one line, and no more than a path, a file name or an id can have
_Named = Annotated[str, Meta(min_length=1, max_length=1024, pattern=LINE_PATTERN)]
_INSPECTION: Final = reports.WHOLE
_VOLATILITY: Final = "volatility"


class InsightsRequest(msgspec.Struct):
    """Which checkpoint (path, file name or id), and what to look at.

    ``other`` is for ``diff``: the later checkpoint. ``with_values`` shows what environment variables hold.
    ``refresh`` reads the images again, although the report was made before.
    """

    example: ClassVar[dict[str, Any]] = {
        "checkpoint_path": "/app/checkpoints/test-app-12345.tar",
        "analysis_type": "volatility",
    }
    rules: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "anyOf": [
                {"properties": {"analysis_type": {"not": {"const": "diff"}}}},
                {"properties": {"other": {"type": "string"}}, "required": ["other"]},
            ]
        },
    )
    checkpoint_path: _Named
    analysis_type: Literal[
        "summary",
        "processes",
        "memory",
        "files",
        "sockets",
        "volatility",
        "secrets",
        "diff",
    ] = "summary"
    other: _Named | None = None
    with_values: bool = False
    refresh: bool = False
    wait: bool = True


class InsightsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; ``truncated``: there is more than a report may hold."""

    checkpoint_path: str
    checkpoint_id: str
    analysis_type: str
    insights: dict[str, Any]
    truncated: bool
    message: str
    success: bool = True


class CheckpointNamed(msgspec.Struct):
    """Which checkpoint: the pod, and the checkpoint's file name with or without ``.tar``."""

    example: ClassVar[dict[str, Any]] = {
        "pod_name": "test-app",
        "checkpoint_name": "test-app-checkpoint",
    }
    pod_name: PodName
    checkpoint_name: _Named


class Inspected(msgspec.Struct, frozen=True):
    """A report was made; ``output`` is its name."""

    output: str
    message: str = "Checkpoint inspected successfully"
    success: bool = True


class Inspection(msgspec.Struct, frozen=True):
    """The report, in the shape of ``checkpointctl inspect --all --format json``; ``truncated`` as in insights."""

    logs: list[dict[str, Any]]
    truncated: bool
    message: str = "Checkpoint information retrieved successfully"
    success: bool = True


class Analyzed(msgspec.Struct, frozen=True):
    """A report was made; ``output_file`` is its name."""

    output_file: str
    status: str = "done"
    message: str = "Checkpoint analyzed successfully"
    success: bool = True


@SECTION.route(
    "POST",
    "/checkpoint/insights",
    takes=InsightsRequest,
    gives=InsightsAnswer,
    accepts=(202,),
    query=("wait",),
    errors=_ERRORS,
    audited=True,
)
async def read_insights(call: Call, wanted: InsightsRequest) -> InsightsAnswer | Reply:
    """Look into a checkpoint: processes, memory, files, sockets, secrets, or what changed since.

    The images are read on the checkpoint's node. All may see the ``summary``; the rest shows what was in a
    process's memory and needs the role operator. ``secrets`` tells kinds and places, never values.
    """
    command = AnalysisCommand(
        checkpoint=wanted.checkpoint_path,
        analysis_type=wanted.analysis_type,
        other=wanted.other or "",
        with_values=wanted.with_values,
        refresh=wanted.refresh,
    )
    call.subject = f"{wanted.checkpoint_path} {wanted.analysis_type}"
    analysis = await call.services.analyses.begin(command, call.actor)
    call.subject = analysis.subject
    if analysis.job is None:
        return _answer(analysis, analysis.report or {})

    async def answer(job: Job) -> InsightsAnswer:
        return _answer(analysis, await call.services.analyses.report(job))

    return await outcome(call, analysis.job, wanted.wait, answer)


@SECTION.route(
    "POST",
    "/checkpoint/checkpointctl",
    takes=CheckpointNamed,
    gives=Inspected,
    needs=Role.OPERATOR,
    accepts=(202,),
    errors=_ERRORS,
    audited=True,
)
async def inspect_checkpoint(call: Call, wanted: CheckpointNamed) -> Inspected | Reply:
    """Make the report that ``/checkpoint/checkpointctl/information`` gives."""
    analysis = await _begun(call, wanted, _INSPECTION)

    async def answer(_job: Job | None) -> Inspected:
        return Inspected(_label(analysis.checkpoint, ".json"))

    if analysis.job is None:
        return await answer(None)
    return await outcome(call, analysis.job, True, answer)


@SECTION.route(
    "GET",
    "/checkpoint/checkpointctl/information",
    takes=CheckpointNamed,
    gives=Inspection,
    needs=Role.OPERATOR,
    errors=("CHECKPOINT_NOT_FOUND", "PERMISSION_DENIED", "CONFLICT"),
    audited=True,
)
async def read_inspection(call: Call, wanted: CheckpointNamed) -> Inspection:
    """The report that ``POST /checkpoint/checkpointctl`` made."""
    report = await _known(call, wanted, _INSPECTION)
    truncated = bool(report.pop("truncated", False))
    return Inspection([report], truncated)


@SECTION.route(
    "POST",
    "/checkpoint/analyze/volatility",
    takes=CheckpointNamed,
    gives=Analyzed,
    needs=Role.OPERATOR,
    accepts=(202,),
    errors=_ERRORS,
    audited=True,
)
async def analyze_memory(call: Call, wanted: CheckpointNamed) -> Analyzed | Reply:
    """Make the report that ``/checkpoint/analyze/volatility/results`` gives."""
    analysis = await _begun(call, wanted, _VOLATILITY)

    async def answer(_job: Job | None) -> Analyzed:
        return Analyzed(_label(analysis.checkpoint, "_volatility.json"))

    if analysis.job is None:
        return await answer(None)
    return await outcome(call, analysis.job, True, answer)


@SECTION.route(
    "GET",
    "/checkpoint/analyze/volatility/results",
    takes=CheckpointNamed,
    needs=Role.OPERATOR,
    media="text/plain",
    errors=("CHECKPOINT_NOT_FOUND", "PERMISSION_DENIED", "CONFLICT"),
    audited=True,
)
async def read_analysis(call: Call, wanted: CheckpointNamed) -> web.Response:
    """The report that ``POST /checkpoint/analyze/volatility`` made: JSON, as plain text."""
    report = await _known(call, wanted, _VOLATILITY)
    return web.Response(
        body=msgspec.json.encode(report), content_type="text/plain", charset="utf-8"
    )


async def _begun(call: Call, wanted: CheckpointNamed, analysis_type: str) -> Analysis:
    command = _command(wanted, analysis_type)
    call.subject = f"{wanted.checkpoint_name} {analysis_type}"
    analysis = await call.services.analyses.begin(command, call.actor)
    call.subject = analysis.subject
    return analysis


async def _known(call: Call, wanted: CheckpointNamed, analysis_type: str) -> dict[str, Any]:
    call.subject = f"{wanted.checkpoint_name} {analysis_type}"
    analysis = await call.services.analyses.known(_command(wanted, analysis_type), call.actor)
    call.subject = analysis.subject
    return analysis.report or {}


def _command(wanted: CheckpointNamed, analysis_type: str) -> AnalysisCommand:
    return AnalysisCommand(wanted.checkpoint_name, analysis_type, pod_name=wanted.pod_name)


def _answer(analysis: Analysis, report: dict[str, Any]) -> InsightsAnswer:
    found = {name: value for name, value in report.items() if name != "truncated"}
    truncated = bool(report.get("truncated"))
    return InsightsAnswer(
        checkpoint_path=_label(analysis.checkpoint, ".tar"),
        checkpoint_id=analysis.checkpoint.id,
        analysis_type=analysis.spec.analysis_type,
        insights=found,
        truncated=truncated,
        message="Analysis completed successfully"
        + ("; the report is full and leaves the rest out" if truncated else ""),
    )


def _label(checkpoint: Checkpoint, suffix: str) -> str:
    return f"{_FOLDER}/{checkpoint.filename.removesuffix('.tar')}{suffix}"
