"""Rows about the way back: from the registry, or from what the node has, to the first tick of the restored process.

The sandbox is the same work for both and left out of the time. Cold: no image, no layer, no page of either is on the
node, and the page cache is empty. Warm: one restore was done before.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bench import lab as place
from bench import ours, pipeline, stock, ticks
from bench.case import OURS, STOCK, Case, Contestant, NotMeasured, Sample, Unusable
from bench.lab import Lab
from bench.row import Row, faster, timed
from deploy.devnode.pods import PodSpec

ANNOTATION: Final = "snap.weaversoft.io/checkpoint"
DOWNLOAD: Final = "our layers by curl"
HANDLER: Final = "snap"
RECORD_S: Final = 5.0
_LEAST_TICKS: Final = 20  # a process that starts anew begins with 1


@dataclass(frozen=True, slots=True)
class _Images:
    """The same process as both made it; ``lab.hog_spec`` is what ours asks for."""

    stock: str
    ours: str


@contextlib.contextmanager
def _images(lab: Lab, case: Case) -> Iterator[_Images]:
    """One process, checkpointed and pushed both ways, then gone."""
    lab.empty_registry()
    buildah, names = stock.Buildah(lab), (lab.name("stock"), lab.name("ours"))
    with lab.hog(case) as pod:
        archive = stock.checkpoint(lab, pod)
        pushed = ours.checkpoint_and_push(lab, pod, names[1])
    image = stock.image_name(lab, names[0])
    with buildah.cleared():
        buildah.push(archive, image)
    stock.forget_archive(archive)
    try:
        yield _Images(image, pushed.image)
    finally:
        lab.delete_checkpoint(pushed.checkpoint.id)  # not before: the right to restore goes with it
        lab.forget_images(lab.other)
        lab.empty_registry()


@contextlib.contextmanager
def _cold(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    def before() -> None:
        lab.forget_images(lab.other)
        lab.drop_caches()

    with _images(lab, case) as images:

        def by_curl() -> Sample:
            before()
            with timed() as watch:
                pipeline.download(lab, images.ours)
            return Sample(watch.seconds)

        yield {**_ways(lab, case, images, before), DOWNLOAD: by_curl}


@contextlib.contextmanager
def _warm(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    with _images(lab, case) as images:
        ways = _ways(lab, case, images, lab.settle)
        for way in ways.values():
            with contextlib.suppress(
                Unusable
            ):  # a first one may be too slow; it leaves the pages here
                way()
        yield ways


def _ways(
    lab: Lab, case: Case, images: _Images, before: Callable[[], None]
) -> Mapping[str, Contestant]:
    registry = lab.world.checkpoints

    def by_stock() -> Sample:
        before()
        spec = lab.hog_spec(case, lab.name("restored"))
        login = (registry.user, registry.password)
        return _restore(lab, replace(spec, image=images.stock, auth=login))

    def by_us() -> Sample:
        before()
        spec = lab.hog_spec(case, lab.name("restored"))
        wanted = {ANNOTATION: json.dumps({place.CONTAINER: images.ours})}
        return _restore(lab, replace(spec, handler=HANDLER, annotations=wanted))

    return {STOCK: by_stock, OURS: by_us}


def _restore(lab: Lab, spec: PodSpec) -> Sample:
    pods = lab.pods(lab.other)
    began_s = time.time()  # the runtime's clock, which dates the first tick
    pod = pods.run(spec)
    try:
        tick = ticks.first_tick(pod)
        found = _outcome(lab, pod.container_id) if spec.handler == HANDLER else {}
        if tick.number < _LEAST_TICKS:
            reason = found.get("reason", "its runtime did not say why")
            raise Unusable(f"the process started anew: {reason}")
    finally:
        place.remove(pods, pod)
    notes = {f"{name}_ms": value for name, value in pod.timings_ms.items()}
    notes |= {
        name: float(found[name])
        for name in ("prepare_ms", "restore_ms", "criu_restore_ms")
        if name in found
    }
    seconds = tick.seen_s - began_s - pod.timings_ms["sandbox"] / 1000
    return Sample(seconds, notes)


def _outcome(lab: Lab, container_id: str) -> dict[str, Any]:
    """The agent's record of how the container was started."""
    deadline = time.monotonic() + RECORD_S
    while time.monotonic() < deadline:
        for one in lab.deployed.agents[2].restores():
            if one["container_id"] == container_id:
                return one
        time.sleep(0.05)
    return {"reason": "the agent was not asked"}


@contextlib.contextmanager
def _lazy(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:  # noqa: ARG001 - a row's signature
    raise NotMeasured(
        "the bench asks for eager restores only; lazy ones are tested, but not timed beside stock"
    )
    yield {}


COLD: Final = Row(
    "restore-cold",
    "registry → first tick, nothing on the node",
    "s",
    "≥ 8x",
    faster(8),
    _cold,
)
WARM: Final = Row(
    "restore-warm",
    "pages (stock: image) on the node → first tick",
    "s",
    "≥ 4x",
    faster(4),
    _warm,
)
LAZY: Final = Row(
    "restore-lazy",
    "pages (stock: image) on the node → first tick, lazily",
    "s",
    "≥ 20x, ≥ 4x of our own eager, every page right in the end",
    faster(20),
    _lazy,
)
