"""Rows about the second checkpoint of a process, of whose pages 5 % changed at random since the first.

Each run is a fresh process: checkpoint and push, change, checkpoint and push. The second image is then restored by us
and by containerd's own image restore, and the memory of both must be the original's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from bench import lab as place
from bench import memory, ours, restore_rows
from bench.case import OURS, Case, Contestant, Sample
from bench.lab import Lab
from bench.row import LARGE, Row, at_most, timed
from deploy.devnode.pods import PodSpec

TIME: Final = "time ÷ the first one's"
_MOST_PUSHED: Final = 0.08
_MOST_TIME: Final = 0.5


@contextlib.contextmanager
def _deltas(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    lab.rest  # noqa: B018 - has the programs started before the clock
    yield {OURS: lambda: _twice(lab, case)}
    lab.empty_registry()


def _twice(lab: Lab, case: Case) -> Sample:
    lab.empty_registry()
    pods, name = lab.pods(lab.node), lab.name("delta")
    with lab.hog(case) as pod:
        with timed() as first:
            base = ours.checkpoint_and_push(lab, pod, name)
        changed = memory.change(pods, pod)
        checksum = memory.checksum(pods, pod)
        lab.settle()
        with timed() as second:
            later = ours.checkpoint_and_push(lab, pod, name)
    notes = {
        TIME: second.seconds / first.seconds,
        "first_s": first.seconds,
        "second_s": second.seconds,
        "changed": changed * place.PAGE_BYTES / case.size_bytes,
        "first pushed": base.pushed_bytes / case.size_bytes,
    }
    _check(lab, lab.hog_spec(case, lab.name("restored")), later.image, checksum)
    for made in (later, base):
        lab.delete_checkpoint(made.checkpoint.id)
    lab.forget_images(lab.other)  # gigabytes of page cache: the next run begins as this one did
    return Sample(later.pushed_bytes / case.size_bytes, notes)


def _check(lab: Lab, spec: PodSpec, image: str, checksum: str) -> None:
    """That both ways restore ``image`` right."""
    wanted = {restore_rows.ANNOTATION: json.dumps({place.CONTAINER: image})}
    mine = replace(spec, handler=restore_rows.HANDLER, annotations=wanted)
    restore_rows.restored(lab, mine, checksum)
    registry = lab.world.checkpoints
    login = (registry.user, registry.password)
    stock = replace(spec, name=lab.name("stock"), image=image, auth=login)
    restore_rows.restored(lab, stock, checksum)


DELTA: Final = Row(
    "delta",
    "second checkpoint of a process, 5 % of its pages changed: pushed bytes ÷ process memory",
    "x",
    "≤ 0.08, restored right by us and by stock",
    at_most(_MOST_PUSHED),
    _deltas,
    cases=((LARGE, "half"), (LARGE, "full")),
    told=("first pushed", "first_s", "second_s"),
)
DELTA_TIME: Final = Row(
    "delta-time",
    "the same: its time, request → manifest visible ÷ that of the first",
    "x",
    "≤ 0.5",
    at_most(_MOST_TIME),
    _deltas,
    cases=DELTA.cases,
    source=DELTA.name,
    note=TIME,
)
