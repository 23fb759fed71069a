"""Inotify watches come back with their folders; a file of the node's own that was open comes back where it is."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.devnode.pods import Mount, Pod, Pods
from deploy.devnode.world import Deployment
from tests.integration.restoring import (
    COUNTING,
    numbers,
    outcome,
    restoring,
    save,
    volume,
    wait_for,
)

pytestmark = pytest.mark.node
# says "saw ROOT" and "saw VOLUME" as often as it makes a file in a folder of the root and in one of a volume
WATCHING = """
import ctypes, os, time
libc = ctypes.CDLL(None)
os.makedirs('/watched/two words')
folders = ['/watched/two words', '/data']
watch = libc.inotify_init1(os.O_NONBLOCK)
for folder in folders:
    libc.inotify_add_watch(watch, folder.encode(), 0x100)  # IN_CREATE
n = 0
while True:
    n += 1
    seen = []
    for folder in folders:
        open(f'{folder}/{n}', 'w').close()
        os.unlink(f'{folder}/{n}')
        try:
            seen.append(folder if str(n).encode() in os.read(watch, 4096) else 'another')
        except BlockingIOError:
            seen.append('nothing')
    print('n', n, *seen, sep=' ', flush=True)
    time.sleep(0.1)
"""
PYTHON = ("/usr/bin/python3", "-S", "-E", "-c", WATCHING)
HOLDING = """
exec 3</node/file
n=0; while :; do n=$((n + 1)); echo "n $n"; sleep 0.1; done
"""


def test_watches_of_the_root_and_of_a_volume(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    spec = replace(COUNTING, image="python", command=PYTHON)
    uids = [str(uuid.uuid4()) for _ in range(2)]
    first = pods1.run(replace(spec, uid=uids[0], mounts=(volume(pods1, uids[0], "work", "/data"),)))
    wait_for(lambda: len(numbers(first)) > 3)
    saved = save(deployed, first, "watches")
    mounts = (volume(pods2, uids[1], "work", "/data"),)
    second = pods2.run(restoring(spec, saved.image, uid=uids[1], mounts=mounts))
    said = outcome(deployed, second)
    assert said["action"] == "restored", said
    wait_for(lambda: len(numbers(second)) > 3)
    assert {line.split(maxsplit=2)[2] for line in second.lines()} == {"/watched/two words /data"}


def node_file(pods: Pods) -> Path:
    file = pods.node.host_path("/srv/open-file/file")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("the node's\n")
    return file


@pytest.fixture
def holding(pods1: Pods) -> Pod:
    """A container on node 1 that has a file of the node open."""
    node_file(pods1)
    mounts = (Mount("/srv/open-file", "/node"),)
    pod = pods1.run(replace(COUNTING, command=("/bin/sh", "-c", HOLDING), mounts=mounts))
    wait_for(lambda: len(numbers(pod)) > 3)
    return pod


def test_a_file_of_the_node_must_be_there(deployed: Deployment, pods2: Pods, holding: Pod) -> None:
    saved = save(deployed, holding, "node-file")
    file = node_file(pods2)
    pod = pods2.run(restoring(holding.spec, saved.image))
    said = outcome(deployed, pod)
    assert said["action"] == "restored", said
    pods2.remove(pod)
    file.write_text("another\n")
    pod = pods2.run(restoring(holding.spec, saved.image))
    said = outcome(deployed, pod)
    assert (said["action"], said["code"]) == ("cold", "host_files"), said
    assert "/node/file" in said["reason"]
    assert "another size" in said["reason"]
    wait_for(lambda: numbers(pod)[:1] == [1])
