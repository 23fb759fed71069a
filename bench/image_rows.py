"""Rows about the way to the registry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from bench import counters, ours, pipeline, stock
from bench.case import OURS, STOCK, Case, Contestant, Sample
from bench.lab import Lab
from bench.row import LARGE, SMALL, Medians, Row, at_most, faster, timed

PIPELINE: Final = "pipeline"
WRITTEN: Final = "written ÷ memory"
_PUSH_FASTER: Final = {"half": 10.0, "full": 3.0}
_OF_PIPELINE: Final = 0.75


@contextlib.contextmanager
def _pushes(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    """Stock and pipeline take one archive, we take one checkpoint; the registry is empty before each run."""
    with lab.hog(case) as pod:
        archive = stock.checkpoint(lab, pod)
        made = ours.checkpoint(lab, pod)
    buildah = stock.Buildah(lab)

    def by_stock() -> Sample:
        _ready(lab)
        name = lab.name("stock")
        with buildah.cleared():
            with timed() as watch:
                buildah.push(archive, stock.image_name(lab, name))
            ours.check_visible(lab, name)
        return Sample(watch.seconds)

    def by_us() -> Sample:
        _ready(lab)
        name = lab.name("ours")
        found = ours.push(lab, made, name)
        ours.check_visible(lab, name)
        return Sample(found.pop("seconds"), found)

    def by_pipeline() -> Sample:
        _ready(lab)
        with timed() as watch:
            pipeline.upload(lab, archive.path, lab.name("pipeline"))
        return Sample(watch.seconds, {"mb_per_s": archive.size_bytes / 1e6 / watch.seconds})

    try:
        yield {STOCK: by_stock, PIPELINE: by_pipeline, OURS: by_us}
    finally:
        stock.forget_archive(archive)
        lab.delete_checkpoint(made.id)
        lab.empty_registry()


def _ready(lab: Lab) -> None:
    """The registry empty and the disk idle, so that no run pays for the one before."""
    lab.empty_registry()
    lab.settle()


def _push_is_fast(medians: Medians, case: Case) -> bool:
    fast = medians[STOCK] / medians[OURS] >= _PUSH_FASTER[case.data]
    return fast and medians[PIPELINE] / medians[OURS] >= _OF_PIPELINE


@contextlib.contextmanager
def _whole_jobs(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    """A fresh process for each run; the time, and beside it the bytes written."""
    yield {
        STOCK: lambda: _seconds_first(_stock_job(lab, case)),
        OURS: lambda: _seconds_first(_our_job(lab, case)),
    }
    lab.empty_registry()


def _seconds_first(job: dict[str, float]) -> Sample:
    return Sample(job.pop("seconds"), job)


def _stock_job(lab: Lab, case: Case) -> dict[str, float]:
    _ready(lab)
    buildah, name = stock.Buildah(lab), lab.name("stock")
    group = lab.node.cgroup("")
    with lab.hog(case) as pod, buildah.cleared():
        before = counters.written_bytes(group)
        with timed() as watch:
            archive = stock.checkpoint(lab, pod)
            buildah.push(archive, stock.image_name(lab, name))
        written = counters.written_since(before, group)
        ours.check_visible(lab, name)
        stock.forget_archive(archive)
    return {"seconds": watch.seconds, WRITTEN: written / case.size_bytes}


def _our_job(lab: Lab, case: Case) -> dict[str, float]:
    lab.rest  # noqa: B018 - has the programs started before the clock
    _ready(lab)
    name = lab.name("ours")
    group = lab.node.cgroup("")
    with lab.hog(case) as pod:
        before = counters.written_bytes(group)
        with timed() as watch:
            pushed = ours.checkpoint_and_push(lab, pod, name)
        written = counters.written_since(before, group)
        ours.check_visible(lab, pushed.repository)
        lab.delete_checkpoint(pushed.checkpoint.id)
    pause_ms = pushed.checkpoint.pause_ms
    return {"seconds": watch.seconds, WRITTEN: written / case.size_bytes, "pause_ms": pause_ms}


PUSH: Final = Row(
    "push",
    "archive → manifest visible in the registry",
    "s",
    "≥ 10x (random data ≥ 3x), ≥ 75 % of the pipeline's rate",
    _push_is_fast,
    _pushes,
    cases=((LARGE, "half"), (LARGE, "full"), (SMALL, "half"), (SMALL, "full")),
    told=("cpu_s",),
    limit=(
        "Two cores that the registry shares, and both are busy: ours takes `cpu_s` of them to compress each "
        "byte once, hash it twice, encrypt and send it, the registry and the kernel the rest (twice the "
        "seconds, less `cpu_s`) to decrypt, hash and store it. The pipeline, which does the same, stands "
        "beside it. Tried: blobs framed without a copy (0.4 s of one core less at 1 GiB); one connection for "
        "many blobs (0.1 s of both cores less, within the spread), smaller reads, a zstd frame for each of "
        "them, TLS records gathered in memory before they are sent (no less processor time)."
    ),
)
CHECKPOINT_AND_PUSH: Final = Row(
    "checkpoint-and-push",
    "request → manifest visible",
    "s",
    "≥ 10x",
    faster(10),
    _whole_jobs,
    limit=(
        "The sum of checkpoint and push; see there. From the first layer to the last both cores are busy (idle "
        "together for 0.1-0.2 s, by /proc/stat). While CRIU dumps one core has nothing to do: making layers of "
        "pages that are still being written could save half of the dump's time at most, and would take "
        "processor and memory from the dump that a process stands still for."
    ),
)
BYTES_WRITTEN: Final = Row(
    "bytes-written",
    "bytes written to the node's disk ÷ process memory, one checkpoint-and-push",
    "x",
    "≤ 1.1",
    at_most(1.1),
    _whole_jobs,
    source=CHECKPOINT_AND_PUSH.name,
    note=WRITTEN,
)
