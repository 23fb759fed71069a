"""Rows about the way back: from the registry, or from what the node has, to the first tick of the restored process.

The sandbox is the same work for both and left out of the time. Cold: no image, no layer, no page of either is on the
node, and the page cache is empty. Warm: one restore was done before. After each run the process says the checksum of
its memory; another one than the original's and the run does not count.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bench import bare, memory, ours, pipeline, stock, ticks
from bench import lab as place
from bench.case import OURS, STOCK, Case, Contestant, Sample, Unusable
from bench.lab import Lab
from bench.row import Medians, Row, faster, timed
from deploy.devnode.pods import PodSpec

ANNOTATION: Final = "snap.weaversoft.io/checkpoint"
MODE: Final = "snap.weaversoft.io/restore-mode"
EAGER: Final = "our own eager"
PLAIN: Final = "an empty container's create and start"
BARE: Final = "a bare runc restore"
BARE_LAZY: Final = "a bare runc restore, lazily"
DOWNLOAD: Final = "our layers by curl"
UNPACK: Final = "our layers by curl, openssl, zstd onto the disk"
READ: Final = "the pages read into new memory"
HANDLER: Final = "snap"
RECORD_S: Final = 5.0
_LAZY_OF_STOCK: Final = 20
_LAZY_OF_EAGER: Final = 4
_LEAST_TICKS: Final = 20  # a process that starts anew begins with 1


@dataclass(frozen=True, slots=True)
class _Images:
    """The same process as both made it; ``lab.hog_spec`` is what ours asks for."""

    stock: str
    ours: str
    checksum: str

    @property
    def on_node(self) -> str:
        """CRIU's images in the cache of a node that has restored ours."""
        return f"/var/lib/snap/cache/{self.ours.rpartition(':')[2]}/checkpoint"

    @property
    def flat_on_node(self) -> str:
        """The same in one folder, of a node that has restored ours lazily."""
        return f"/var/lib/snap/cache/{self.ours.rpartition(':')[2]}.flat/checkpoint"


@contextlib.contextmanager
def _images(lab: Lab, case: Case) -> Iterator[_Images]:
    """One process, checkpointed and pushed both ways, then gone."""
    lab.empty_registry()
    buildah, names = stock.Buildah(lab), (lab.name("stock"), lab.name("ours"))
    with lab.hog(case) as pod:
        checksum = memory.checksum(lab.pods(lab.node), pod)
        archive = stock.checkpoint(lab, pod)
        pushed = ours.checkpoint_and_push(lab, pod, names[1])
    image = stock.image_name(lab, names[0])
    with buildah.cleared():
        buildah.push(archive, image)
    stock.forget_archive(archive)
    try:
        yield _Images(image, pushed.image, checksum)
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

        def by_tools(bring: Callable[[Lab, str], None]) -> Contestant:
            def run() -> Sample:
                before()
                with timed() as watch:
                    bring(lab, images.ours)
                return Sample(watch.seconds)

            return run

        ways = _Ways(lab, case, images, before)
        yield {
            STOCK: ways.stock,
            OURS: ways.eager,
            DOWNLOAD: by_tools(pipeline.download),
            UNPACK: by_tools(pipeline.unpack),
        }


@contextlib.contextmanager
def _warm(lab: Lab, case: Case) -> Iterator[Mapping[str, Contestant]]:
    with _images(lab, case) as images:
        ways = _Ways(lab, case, images, lab.settle).warmed()
        with bare.beside(lab, case, images.on_node, images.flat_on_node) as alone:
            yield {
                STOCK: ways.stock,
                EAGER: ways.eager,
                READ: lambda: _read(lab, images),
                BARE: alone.eager,
                PLAIN: lambda: _plain(lab),
                BARE_LAZY: alone.lazy,
                OURS: ways.lazy,
            }


@dataclass(frozen=True, slots=True)
class _Ways:
    """The ways to restore one process, ``before`` done before each."""

    lab: Lab
    case: Case
    images: _Images
    before: Callable[[], None]

    def warmed(self) -> _Ways:
        """After one restore each, so that image and pages are on the node."""
        for way in (self.stock, self.eager, self.lazy):
            with contextlib.suppress(Unusable):  # a first one may be too slow; it leaves the pages
                way()
        return self

    def stock(self) -> Sample:
        """By containerd, from the checkpoint image that buildah made."""
        registry = self.lab.world.checkpoints
        login = (registry.user, registry.password)
        return self._restored(image=self.images.stock, auth=login)

    def eager(self) -> Sample:
        """By us, all memory there before the process runs."""
        return self._ours("eager")

    def lazy(self) -> Sample:
        """By us, memory coming while the process runs."""
        return self._ours("lazy")

    def _ours(self, mode: str) -> Sample:
        wanted = {ANNOTATION: json.dumps({place.CONTAINER: self.images.ours}), MODE: mode}
        return self._restored(handler=HANDLER, annotations=wanted)

    def _restored(self, **how: Any) -> Sample:
        self.before()
        spec = replace(self.lab.hog_spec(self.case, self.lab.name("restored")), **how)
        return restored(self.lab, spec, self.images.checksum)


def _read(lab: Lab, images: _Images) -> Sample:
    """What this machine needs to have the pages in a process's memory: all that CRIU does not add."""
    folder = lab.other.host_path(images.on_node)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    sizes = ((path, path.stat().st_size) for path in folder.rglob("pages-*.img"))
    files = [(path, size) for path, size in sizes if size]
    with timed() as watch:
        for path, size in files:
            with (
                mmap.mmap(-1, size, flags=private) as memory_,
                path.open("rb", buffering=0) as pages,
            ):
                done, view = 0, memoryview(memory_)
                while taken := pages.readinto(view[done:]):
                    done += taken
                view.release()
    return Sample(watch.seconds)


def _plain(lab: Lab) -> Sample:
    """What the runtime itself needs to start a container that does nothing: no restore can be faster."""
    pods = lab.pods(lab.other)
    pod = pods.run(PodSpec(lab.name("plain"), "counter"))
    place.remove(pods, pod)
    return Sample((pod.timings_ms["create"] + pod.timings_ms["start"]) / 1000)


def restored(lab: Lab, spec: PodSpec, checksum: str) -> Sample:
    """Restore a pod on the other node, check its memory, remove it.

    Raises:
        Unusable: it was not restored as asked, or not right.
    """
    pods = lab.pods(lab.other)
    began_s = time.time()  # the runtime's clock, which dates the first tick
    pod = pods.run(spec)
    try:
        tick = ticks.first_tick(pod)
        found = _outcome(lab, pod.container_id) if spec.handler == HANDLER else {}
        if tick.number < _LEAST_TICKS:
            reason = found.get("reason", "its runtime did not say why")
            raise Unusable(f"the process started anew: {reason}")
        mode = spec.annotations.get(MODE, "")
        if mode and found.get("mode") != mode:
            raise Unusable(f"restored {found.get('mode')}: {found.get('mode_reason')}")
        memory.check(pods, pod, checksum)
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


def _is_lazy_fast(medians: Medians, _: Case) -> bool:
    mine = medians[OURS]
    fast = medians[STOCK] / mine >= _LAZY_OF_STOCK
    return fast and medians[EAGER] / mine >= _LAZY_OF_EAGER


COLD: Final = Row(
    "restore-cold",
    "registry → first tick, nothing on the node",
    "s",
    "≥ 8x",
    faster(8),
    _cold,
    told=("pull_ms", "prepare_ms", "criu_restore_ms"),
    limit=(
        "Three parts that can't overlap: the runtime pulls the container's own image (`pull_ms`) before the "
        "agent is asked; the layers are brought, checked and unpacked (`prepare_ms`; the same work by curl, "
        "openssl and zstd stands beside it); and CRIU, which may see no page that was not checked, restores "
        "(`criu_restore_ms`; see restore-warm: the agent puts the pages in place when all are here). What is left is "
        "the runtime and its programs, read from the disk. Every layer has its own thread and connection, and both "
        "cores are busy while layers come (7 % idle by /proc/stat): of 2.2 s the registry takes 1.1 s of a core, the "
        "agent 2.5 s, half of that in the kernel (sockets, page cache). Pages put in place meanwhile would wait for "
        "the same cores."
    ),
)
WARM: Final = Row(
    "restore-warm",
    "pages (stock: image) on the node → first tick",
    "s",
    "≥ 4x",
    faster(4),
    _warm,
    source="restore-lazy",
    ours=EAGER,
    told=("prepare_ms", "criu_restore_ms"),
    limit=(
        "Ours puts pages in place by userfaultfd, in a thread for each core; stock and a bare `runc restore` read "
        "them with preadv(2) into fresh memory. That read alone, and the whole of `runc restore` alone, without "
        "runtime, wrapper and agent, stand beside it, like the runtime's own create and start; the agent's checks "
        "and files are `prepare_ms`. Two cores copy 1 GiB in 0.2 s at best. Tried: transparent huge pages for the "
        "whole node (no gain); CRIU's images flat instead of as a chain (`runc restore` alone 6 % shorter at 512 MiB)."
    ),
)
LAZY: Final = Row(
    "restore-lazy",
    "pages (stock: image) on the node → first tick, lazily",
    "s",
    "≥ 20x, ≥ 4x of our own eager, every page right in the end",
    _is_lazy_fast,
    _warm,
    told=("prepare_ms", "criu_restore_ms"),
    limit=(
        "Two parts that can't be left out stand beside it: the container runtime's own create and start of a "
        "container that does nothing, and `runc restore --lazy-pages` alone with its daemon ready. What is left "
        "is the agent's checks and files and the start of that daemon, which overlap (`prepare_ms`), and the "
        "wrapper's shell. Our own eager pays the same start, and 0.2 to 0.3 s for 1 GiB, which is less than three such "
        "starts. Tried: no `runc ps` to learn whom to let go (0.02 s, which is less than the spread)."
    ),
)
