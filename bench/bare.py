"""What runc and CRIU alone need to bring the same images back: the floor below every restore of this machine.

A second process is restored into a pod that is there already, from a copy of its bundle: same image, same mounts,
same namespaces, another container id. No container runtime, no agent and no wrapper take part.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from bench import lab as place
from bench.case import MIB, Case, Sample, Unusable
from bench.lab import Lab
from deploy.devnode.pods import Pod

_FOLDER: Final = "/var/lib/snap/bench-bare"
_BUNDLES: Final = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
_RESTORE_S: Final = 120.0
# id, folder, images, --lazy-pages or nothing; prints the nanoseconds of `runc restore` alone
_SCRIPT: Final = """\
id=$1 folder=$2 images=$3 lazy=$4 daemon='' status=0
runc="runc --root $folder/state"
if [ -n "$lazy" ]; then
  criu lazy-pages --images-dir "$images" --work-dir "$folder/work" --log-file lazy-pages.log \
    </dev/null >/dev/null 2>&1 &
  daemon=$!
  until [ -S "$folder/work/lazy-pages.socket" ]; do
    kill -0 $daemon || { cat "$folder/work/lazy-pages.log" >&2; exit 1; }
    sleep 0.005
  done
fi
begun=$(date +%s%N)
$runc restore --detach --bundle "$folder" $lazy --file-locks --image-path "$images" --work-path "$folder/work" "$id" \
  </dev/null >"$folder/out" 2>&1 || status=$?
ended=$(date +%s%N)
$runc delete --force "$id" >/dev/null 2>&1
if [ -n "$daemon" ]; then kill $daemon 2>/dev/null; wait; fi
[ $status -eq 0 ] || { cat "$folder/out"; grep 'Error (' "$folder/work/restore.log"; } >&2
echo $((ended - begun))
exit $status
"""


@dataclass(frozen=True, slots=True)
class Bare:
    """Restores the images below ``images`` (a path of the node) beside ``pod``, lazily those below ``flat``."""

    lab: Lab
    pod: Pod
    images: str
    flat: str

    def eager(self) -> Sample:
        """``runc restore``, from its call to its end: the process runs."""
        return self._restored("")

    def lazy(self) -> Sample:
        """The same with ``--lazy-pages``; the daemon that brings the pages waits already."""
        return self._restored("--lazy-pages")

    def _restored(self, lazy: str) -> Sample:
        name = self.lab.name("bare")
        self._lay_out(name)
        self.lab.settle()
        images = self.flat if lazy else self.images
        argv = ["sh", "-c", _SCRIPT, "bare", name, _FOLDER, images, lazy]
        try:
            done = self.lab.other.run(argv, timeout_s=_RESTORE_S, check=False)
        finally:
            shutil.rmtree(self.lab.other.host_path(_FOLDER), ignore_errors=True)
        if done.returncode:
            raise Unusable(f"a bare runc restore failed: {done.stderr[-400:]}")
        return Sample(int(done.stdout.split()[-1]) / 1e9)

    def _lay_out(self, name: str) -> None:
        """A bundle like the pod's own, for a container of another id."""
        bundle = f"{_BUNDLES}/{self.pod.container_id}"
        folder = self.lab.other.host_path(_FOLDER)
        (folder / "work").mkdir(parents=True)
        config = json.loads(self.lab.other.host_path(f"{bundle}/config.json").read_text())
        config["root"]["path"] = f"{bundle}/rootfs"
        config["linux"]["cgroupsPath"] = config["linux"]["cgroupsPath"].replace(
            self.pod.container_id, name
        )
        (folder / "config.json").write_text(json.dumps(config))


@contextlib.contextmanager
def beside(lab: Lab, case: Case, images: str, flat: str) -> Iterator[Bare]:
    """A small pod of the measured image for the block, and bare restores into it."""
    pods = lab.pods(lab.other)
    pod = pods.run(lab.hog_spec(replace(case, size_bytes=MIB), lab.name("host")))
    try:
        yield Bare(lab, pod, images, flat)
    finally:
        place.remove(pods, pod)
