"""Much memory in several processes: read from a flat folder, as CRIU would need minutes for it over a chain."""

from __future__ import annotations

import pytest

from agent.formats import core_images
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import Deployment
from tests.integration.restoring import Saved, outcome, restoring, save, wait_for

pytestmark = pytest.mark.node
BYTES = 64_000_000
# three processes with the same text, which none has written to since; one page of zeros would end it
SCRIPT = f"""
x=$(head -c {BYTES} /dev/zero | tr '\\0' a)
for name in left right; do
  ( n=0; while :; do n=$((n + 1)); echo "$name $n ${{#x}}"; sleep 0.3; done ) &
done
wait
"""
FAMILY = PodSpec(name="family", image="counter", command=("/bin/sh", "-c", SCRIPT))


def last(pod: Pod, name: str) -> int:
    """How far one of the two has counted; what it says of its text is checked."""
    lines = [line.split() for line in pod.lines() if line.startswith(name)]
    assert {int(length) for _, _, length in lines} <= {BYTES}
    return int(lines[-1][1]) if lines else 0


def test_they_go_on_from_flat_memory(deployed: Deployment, pods1: Pods, pods2: Pods) -> None:
    assert core_images.is_sooner_flat(3 * BYTES, 3)
    pod = pods1.run(FAMILY)
    for name in ("left", "right"):
        wait_for(lambda name=name: last(pod, name) > 2)  # type: ignore[misc]
    saved = save(deployed, pod, "family")
    before = {name: last(pod, name) for name in ("left", "right")}
    back = pods2.run(restoring(FAMILY, saved.image))
    told = outcome(deployed, back)
    assert (told["action"], told["mode"]) == ("restored", "eager"), told
    for name, count in before.items():
        wait_for(lambda name=name: last(back, name) > 2)  # type: ignore[misc]
        first = next(line.split() for line in back.lines() if line.startswith(name))
        assert 2 < int(first[1]) <= count + 1
    assert is_flat(back, saved)
    (made,) = deployed.rest.get("/checkpoint/list?pod_name=family")["checkpoints"]
    deployed.rest.post(f"/checkpoint/{made['id']}/prefetch", {"nodes": [pod.node.name]})
    assert is_flat(pod, saved)


def is_flat(pod: Pod, saved: Saved) -> bool:
    """Whether the node of ``pod`` has the flat twin of an image."""
    images = pod.node.host_path(f"/var/lib/snap/cache/{saved.digest_hex}.flat/checkpoint")
    return (images / "pages-1.img").is_file() and not (images / "parent").exists()
