"""A container comes back in a new pod of another node, with its memory, files, log, network and name there."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from deploy.devnode.pods import Pods, PodSpec
from deploy.devnode.world import Deployment
from tests.integration.restoring import (
    COUNTING,
    numbers,
    outcome,
    restoring,
    save,
    state_files,
    volume,
    wait_for,
)

pytestmark = pytest.mark.node


def test_counting_goes_on_with_its_files(deployed: Deployment, pods1: Pods, pods2: Pods) -> None:
    first = pods1.run(COUNTING)
    wait_for(lambda: len(numbers(first)) > 5)
    saved = save(deployed, first, "goes-on")
    second = pods2.run(restoring(COUNTING, saved.image))
    wait_for(lambda: len(numbers(second)) > 5)
    said = outcome(deployed, second)
    assert said["action"] == "restored", said
    assert said["pid"] > 0
    assert said["pages_restored"] > 0
    assert 0 < said["prepare_ms"] < said["start_ms"]
    assert saved.last - 5 < numbers(second)[0] <= saved.last + 1
    assert pods2.exec(second, "cat", "/opt/new").strip() == "mine"
    assert pods2.exec(second, "ls", "/opt").split() == ["new"]
    assert "os-release" not in pods2.exec(second, "ls", "/etc")
    assert pods2.exec(second, "stat", "-c", "%a", "/srv").strip() == "751"
    assert pods2.exec(second, "hostname").strip() == "restored"
    assert state_files(second) == ["criu.conf"]
    pods2.stop_container(second.container_id, 0)
    pods2.remove(second)
    assert state_files(second) == []


def test_redis_has_its_keys_and_the_new_pods_address(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    spec = PodSpec(name="cache", image="redis")
    first = pods1.run(spec)
    wait_for(lambda: "PONG" in pods1.exec(first, "sh", "-c", "redis-cli ping || true"))
    pods1.exec(first, "redis-cli", "set", "answer", "42")
    saved = save(deployed, first, "redis")
    second = pods2.run(restoring(spec, saved.image))
    assert outcome(deployed, second)["action"] == "restored"
    assert pods2.exec(second, "redis-cli", "get", "answer").strip() == "42"
    ours, theirs = (
        pods.exec(pod, "ip", "-4", "-o", "addr", "show", "eth0").split()[3]
        for pods, pod in ((pods2, second), (pods1, first))
    )
    assert ours != theirs
    address = ours.split("/")[0]
    assert pods2.exec(second, "redis-cli", "-h", address, "ping").strip() == "PONG"


def test_a_restored_container_is_checkpointed_again(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    first = pods1.run(COUNTING)
    wait_for(lambda: len(numbers(first)) > 3)
    second = pods2.run(restoring(COUNTING, save(deployed, first, "again-1").image))
    assert outcome(deployed, second)["action"] == "restored"
    wait_for(lambda: len(numbers(second)) > 3)
    saved = save(deployed, second, "again-2")
    wait_for(lambda: numbers(second)[-1] > saved.last + 2)  # it runs on
    third = pods1.run(restoring(COUNTING, saved.image))
    said = outcome(deployed, third)
    assert said["action"] == "restored", said
    wait_for(lambda: numbers(third))
    assert numbers(third)[0] >= saved.last - 5


def test_an_open_file_of_a_config_map_keeps_its_old_content(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    script = """
    exec 3</config/color
    n=0; while :; do n=$((n + 1)); echo "n $n"; [ ! -e /tmp/tell ] || break; sleep 0.1; done
    read -r old <&3; read -r new </config/color; echo "$old then $new"; sleep 600
    """
    spec = replace(COUNTING, command=("/bin/sh", "-c", script))
    mounts = []
    for pods, date, color in ((pods1, "..2026_01", "red"), (pods2, "..2026_02", "blue")):
        uid = str(uuid.uuid4())
        mount = volume(pods, uid, "colors", "/config", plugin="configmap")
        folder = pods.node.host_path(mount.host_path)
        (folder / date).mkdir()
        (folder / date / "color").write_text(f"{color}\n")
        (folder / "..data").symlink_to(date)
        (folder / "color").symlink_to("..data/color")
        mounts.append((uid, (replace(mount, readonly=True),)))
    first = pods1.run(replace(spec, uid=mounts[0][0], mounts=mounts[0][1]))
    wait_for(lambda: len(numbers(first)) > 3)
    saved = save(deployed, first, "config-map")
    uid, mine = mounts[1]
    second = pods2.run(restoring(spec, saved.image, uid=uid, mounts=mine))
    said = outcome(deployed, second)
    assert said["action"] == "restored", said
    pods2.exec(second, "sh", "-c", ": >/tmp/tell")
    wait_for(lambda: "red then blue" in second.lines())


def test_a_socket_at_the_pods_own_address_starts_cold_and_says_so(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    script = """
    mine=$(ip -4 -o addr show eth0 | tr / ' ' | tr -s ' ' | cut -d ' ' -f 4)
    redis-server --bind "$mine" --protected-mode no --save '' >/dev/null &
    until redis-cli -h "$mine" ping; do sleep 0.1; done
    n=0; while :; do n=$((n + 1)); echo "n $n"; sleep 0.1; done
    """
    spec = replace(COUNTING, image="redis", command=("/bin/sh", "-c", script))
    first = pods1.run(spec)
    wait_for(lambda: len(numbers(first)) > 3)
    saved = save(deployed, first, "bound")
    second = pods2.run(restoring(spec, saved.image))
    said = outcome(deployed, second)
    assert (said["action"], said["code"]) == ("cold", "address"), said
    assert "any address" in said["reason"]
    wait_for(lambda: numbers(second)[:1] == [1])


def test_volumes_and_shared_memory_come_along(
    deployed: Deployment, pods1: Pods, pods2: Pods
) -> None:
    script = """
    echo first >/cache/log; echo shared >/dev/shm/s; exec 3>>/cache/log 4<>/dev/shm/s
    n=0; while :; do n=$((n + 1)); echo "n $n"; echo "line $n" >&3; sleep 0.1; done
    """
    spec = replace(COUNTING, command=("/bin/sh", "-c", script))
    uids = [str(uuid.uuid4()) for _ in range(2)]
    mount = volume(pods1, uids[0], "cache", "/cache")
    first = pods1.run(replace(spec, uid=uids[0], mounts=(mount,)))
    wait_for(lambda: len(numbers(first)) > 5)
    saved = save(deployed, first, "volumes")
    mount = volume(pods2, uids[1], "cache", "/cache")
    pods2.node.host_path(mount.host_path).joinpath("log").write_text("the new pod's\n")
    second = pods2.run(restoring(spec, saved.image, uid=uids[1], mounts=(mount,)))
    said = outcome(deployed, second)
    assert said["action"] == "restored", said
    wait_for(lambda: len(numbers(second)) > 3)
    lines = pods2.node.host_path(mount.host_path).joinpath("log").read_text().splitlines()
    assert lines[0] == "first"
    assert [int(line.split()[1]) for line in lines[1:]] == list(range(1, len(lines)))
    assert pods2.exec(second, "cat", "/dev/shm/s").strip() == "shared"
    aside = pods2.node.host_path(f"/var/lib/kubelet/pods/{uids[1]}/snap-aside")
    wait_for(lambda: not aside.exists() or not list(aside.iterdir()))


def test_a_terminal_comes_back(deployed: Deployment, pods1: Pods, pods2: Pods) -> None:
    spec = replace(COUNTING, tty=True)
    first = pods1.run(spec)
    wait_for(lambda: len(numbers(first)) > 3)
    saved = save(deployed, first, "terminal")
    second = pods2.run(restoring(spec, saved.image))
    said = outcome(deployed, second)
    assert said["action"] == "restored", said
    wait_for(lambda: len(numbers(second)) > 3)
    assert numbers(second)[0] > 3
