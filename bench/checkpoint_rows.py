"""Rows about the checkpoint itself: how long the process stands still, how long until the archive is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bench import ours, stock, ticks
from bench.case import OURS, STOCK, Case, Contestant, Sample
from bench.lab import Lab
from bench.row import Medians, Row, faster, timed
from deploy.devnode.pods import Pod

BARE: Final = "bare runc"
WALL: Final = "wall_s"
_PAUSE_FASTER: Final = 10
_BARE_SLOWER: Final = 1.15


@contextlib.contextmanager
def _pauses(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    lab.rest  # noqa: B018 - has the programs started outside of the first run

    def of(way: Callable[[Pod], Callable[[], None]]) -> Contestant:
        def run() -> Sample:
            with lab.hog(case) as pod:
                with timed() as watch:
                    undo = way(pod)
                gap_s = ticks.longest_gap_s(pod, watch.began_s, watch.ended_s)
                undo()
            return Sample(gap_s, {WALL: watch.seconds})

        return run

    def by_stock(pod: Pod) -> Callable[[], None]:
        archive = stock.checkpoint(lab, pod)
        return lambda: stock.forget_archive(archive)

    def by_us(pod: Pod) -> Callable[[], None]:
        made = ours.checkpoint(lab, pod)
        return lambda: lab.delete_checkpoint(made.id)

    def bare(pod: Pod) -> Callable[[], None]:
        stock.bare_dump(lab, pod)
        return lambda: None

    yield {STOCK: of(by_stock), BARE: of(bare), OURS: of(by_us)}


def _is_short(medians: Medians, _: Case) -> bool:
    mine = medians[OURS]
    return medians[STOCK] / mine >= _PAUSE_FASTER and mine <= _BARE_SLOWER * medians[BARE]


PAUSE: Final = Row(
    "pause",
    "largest gap in the ticks that the process prints",
    "s",
    "≥ 10x shorter, ≤ 1.15x of a bare runc checkpoint",
    _is_short,
    _pauses,
    limit=(
        "CRIU's own dump, which stands beside it as bare runc; ours is no longer, for it asks CRIU for no lock "
        "of the network and no cgroups. By CRIU's statistics and log of one dump, of 0.45 s at 1 GiB 0.09 s "
        "go into reading smaps and the pagemap, 0.1 s into vmsplice, 0.2-0.3 s into copying 4 KiB pages, the "
        "rest into everything that is not memory. Tried: images on a tmpfs with huge pages (0.08 s less where its"
        " memory had been used before, seconds more where the machine gave it out for the first time, and it "
        "can't be given back under pressure: `SNAP_CHECKPOINT_SCRATCH` is off by default); a pre-dump (needs "
        "soft-dirty tracking: `criu check --feature mem_dirty_track` fails on this kernel); and, each in turns with "
        "plain dumps (medians of 7, plain ones 0.46-0.59 s from run to run): CRIU's page server on the same "
        "node (1.1 s; 0.77 s of it CRIU sends); a FIFO in the place of the pages' file, which CRIU fills without a "
        "copy while another process on the second core empties it into the file (0.45 instead of 0.49 s by splice, "
        "0.51 s by read and write; 0.23 s where all is thrown away, which is what is left without the copy); the "
        "same into a file whose page cache was made before (0.46 instead of 0.59 s in the one run made, whose plain "
        "dumps were the slowest of all: not taken further); CRIU's log on a tmpfs (from 0.04 s less to 0.02 s "
        "more) or none (0.03 s less, within the spread)."
    ),
)
CHECKPOINT: Final = Row(
    "checkpoint",
    "request → archive complete and usable",
    "s",
    "≥ 10x",
    faster(10),
    _pauses,
    source=PAUSE.name,
    note=WALL,
    limit=(
        "The pause above (a bare runc's whole run stands beside it) and about 0.12 s more: two calls of the OCI "
        "runtime, the start of the dump's script and of runc on the node, the request's way through control "
        "plane and link."
    ),
)
