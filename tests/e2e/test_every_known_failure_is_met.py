"""What is known to fail between a checkpoint and its restore works, or is refused with cause and remedy.

``failures/lines.py`` says which test here proves which line.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent.restore.process_numbers import APART
from deploy.devcluster.cluster import Cluster
from deploy.devcluster.operating import operating
from tests.e2e.failures import pods, striking
from tests.e2e.failures.pods import NAMESPACE, Restored
from tests.e2e.failures.rounds import Round

pytestmark = pytest.mark.cluster
RUNC = ("runc", "--root", "/run/containerd/runc/k8s.io")


@pytest.fixture(scope="module")
def met(cluster: Cluster) -> Iterator[Round]:
    """All pods started, checkpointed and restored."""
    with operating(cluster, "failures") as operated:
        one = Round(operated)
        try:
            one.run()
            yield one
        finally:
            one.end()


def test_a_stricter_pod_never_gets_a_looser_process(met: Round) -> None:
    said = met.outcome("stricter")
    assert (said["action"], said["code"]) == ("cold", "privileges"), said
    status = met.exec("stricter", "cat", "/proc/1/status")
    found = {name: " ".join(rest.split()) for name, _, rest in _fields(status)}
    assert found["Uid"] == "1000 1000 1000 1000"
    assert found["CapBnd"] == found["CapPrm"] == "0" * 16
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    met.wait_event("stricter", "StartedCold", "seccomp")


def _fields(status: str) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in status.splitlines()]


@pytest.mark.parametrize(
    ("pod", "code", "words"),
    [
        ("stranger", "no_grant", "not shared with namespace elsewhere"),
        ("environment", "differs", "environment differs in MODE"),
        ("command", "differs", "command differs"),
        ("image", "incompatible", "image is another"),
        ("less", "differs", "the pod has none there"),
        ("more", "differs", "it would not be there"),
        ("readonly", "differs", "it would stay writable"),
        ("small", "differs", "above the pod's limit"),
        ("parted", "differs", "pid namespace"),
        ("bound-back", "address", "have it listen at any address"),
        ("files-lost", "host_files", "does not exist on this node; keep what it has open"),
    ],
)
def test_a_pod_that_asks_for_something_else_starts_cold(
    met: Round, pod: str, code: str, words: str
) -> None:
    said = met.outcome(pod)
    assert (said["action"], said["code"]) == ("cold", code), said
    assert words in said["reason"]
    met.wait_event(pod, "StartedCold", words)


@pytest.mark.parametrize(
    "pod",
    [
        *("clone1", "clone2", "clone3", "clone4", "network-back", "files-back", "memory-back"),
        *("confined-back", "privileged-back", "forking-back", "hostnet-back", "terminal-back"),
        *("slow", "together-back"),
    ],
)
def test_it_is_restored_and_its_log_goes_on(met: Round, pod: str) -> None:
    for container in pods.containers(pod):
        said = met.outcome(pod, container)
        assert said["action"] == "restored", said
        counted = met.wait_counted(pod, container)
        assert counted[0] > 1
        assert counted == sorted(counted)
    met.wait_event(pod, "Restored", "restored eager in")


def test_new_processes_of_a_pod_that_shares_them_leave_its_old_numbers_free(met: Round) -> None:
    assert int(met.exec("together-back", "sh", "-c", "echo $$")) > APART


@pytest.mark.parametrize(
    ("pod", "name", "before", "after"),
    [
        ("network", "established", {"talks"}, {"ended", "EPIPE", "ECONNRESET"}),
        ("network", "in_flight", {"would block"}, {"ended", "EPIPE", "ECONNRESET"}),
        ("network", "listener", {"talks"}, {"talks"}),
        ("files", "cut", {"exact"}, {"exact"}),
        ("files", "shut", {"kept"}, {"kept"}),
        ("files", "by_fd", {"red"}, {"red"}),
        ("files", "by_path", {"red", "blue"}, {"blue"}),
        ("files", "node", {"the node's"}, {"the node's"}),
        ("files", "flock", {"held"}, {"held"}),
        ("files", "lockf", {"held"}, {"held"}),
        ("files", "ghost", {2 << 20}, {2 << 20}),
        ("files", "shm", {"shared shared"}, {"shared shared"}),
        ("files", "root", {"new False"}, {"new False"}),
        ("files", "holes", {"4 True"}, {"4 True"}),
        ("memory", "shared", {"moves"}, {"moves"}),
        ("memory", "memfd", {"memfd"}, {"memfd"}),
        ("memory", "sysv", {"sysv"}, {"sysv"}),
        ("memory", "pipe", {"z"}, {"z"}),
        ("memory", "ticks", {"ticks"}, {"ticks"}),
        ("memory", "root", {"sees"}, {"sees"}),
        ("memory", "volume", {"sees"}, {"sees"}),
        ("forking", "children", {30}, {30}),
        ("confined", "modes", {"2 2 2 2"}, {"2 2 2 2"}),
    ],
)
def test_what_it_holds_is_there_again(
    met: Round, pod: str, name: str, before: set[object], after: set[object]
) -> None:
    for line in met.wait_says(pod):
        assert line[name] in before, line
    for line in met.wait_says(f"{pod}-back"):
        assert line[name] in after, line


def test_monotonic_time_goes_on_and_timers_keep_their_remainder(met: Round) -> None:
    back = met.wait_says("network-back")[0]
    there = next(line for line in met.says("network") if line["n"] == back["n"])
    away_s = back["wall"] - there["wall"]
    assert away_s > 2
    assert abs(back["monotonic"] - there["monotonic"]) < away_s / 2
    assert abs(back["timer_s"] - there["timer_s"]) < away_s / 2


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ("ring", "io_uring"),
        ("stopped", "kill -CONT"),
        ("traced", "traced by another one"),
        ("sandbox", "a PID namespace of its own"),
        ("queue", "a POSIX message queue"),
        ("segments", "System V shared memory"),
        ("hostpid", "run it without hostPID"),
        ("users", "run it with hostUsers: true"),
        ("configured", "org.criu.config"),
    ],
)
def test_what_can_not_be_restored_is_refused_before_the_freeze(
    met: Round, pod: str, words: str
) -> None:
    status, answer = met.answers[pod]
    assert (status, answer["code"]) == (422, "CHECKPOINT_REFUSED"), answer
    assert words in answer["error"]
    met.wait_event(pod, "CheckpointFailed", words)
    for container in pods.containers(pod):
        assert met.status(pod, container)["restartCount"] == 0
        before = met.wait_says(pod, container=container)
        met.wait_says(pod, len(before) + 1, container)


def test_what_does_not_run_is_refused(met: Round) -> None:
    status, answer = met.answers["over"]
    assert (status, answer["code"]) == (422, "CHECKPOINT_REFUSED"), answer
    assert "only a running one can be checkpointed" in answer["error"]


def test_the_originals_are_none_the_worse(met: Round) -> None:
    listed = met.pods()
    restarted = {
        original.name: told["restartCount"]
        for original in pods.ORIGINALS
        if original.is_ready
        for told in listed[original.name]["status"]["containerStatuses"]
        if told["restartCount"]
    }
    assert restarted == {}


def test_an_impatient_liveness_probe_is_warned_about_and_not_tripped(met: Round) -> None:
    status, answer = met.answers["large"]
    assert status == 200, answer
    assert any("failureThreshold" in said for said in answer["warnings"])
    met.wait_event("large", "CheckpointWarning", "set failureThreshold to 3")
    assert met.status("large")["restartCount"] == 0


def test_a_file_of_the_node_and_an_address_of_the_pod_are_warned_about(met: Round) -> None:
    for pod, words in (("files", "keep it in an emptyDir"), ("bound", "at any address")):
        _, answer = met.answers[pod]
        assert any(words in said for said in answer["warnings"]), answer
        met.wait_event(pod, "CheckpointWarning", words)


def test_a_small_cpu_limit_is_told(met: Round) -> None:
    met.wait_event("slow", "Restored", "CPU limit of 100m makes the restore")


def test_a_restored_pod_has_its_own_name(met: Round) -> None:
    met.outcome("clone1")
    assert met.exec("clone1", "hostname").strip() == "clone1"


def test_a_terminal_can_be_attached_to(met: Round) -> None:
    assert met.outcome("terminal-back")["action"] == "restored"
    argv = met.operated.cluster.argv("attach", "-it", "-n", NAMESPACE, "terminal-back")
    mine, its = pty.openpty()
    try:
        with subprocess.Popen(argv, stdin=its, stdout=its, stderr=its) as attached:
            heard, deadline = b"", time.monotonic() + 60
            while heard.count(b"tick ") < 3 and time.monotonic() < deadline:
                if select.select([mine], [], [], 1)[0]:
                    heard += os.read(mine, 4096)
            attached.kill()
    finally:
        os.close(mine)
        os.close(its)
    assert heard.count(b"tick ") >= 3, heard


def test_what_ends_at_once_keeps_its_exit_code_and_its_log(met: Round) -> None:
    met.wait(lambda: "terminated" in met.status("ending-back")["state"], "its end")
    assert met.status("ending-back")["state"]["terminated"]["exitCode"] == 7
    met.wait(
        lambda: [line for line in met.says("ending-back") if line.get("ends")], "its last word"
    )
    assert met.says("ending-back")[-1]["n"] > 1


def test_a_restored_container_is_checkpointed_again(met: Round) -> None:
    assert met.outcome("clone2")["action"] == "restored"
    status, answer = met.checkpoint("clone2")
    assert status == 200, answer
    counted = len(met.wait_counted("clone2"))
    met.wait_counted("clone2", count=counted + 2)


def test_a_restart_starts_cold(met: Round) -> None:
    said = met.outcome("clone3")
    assert said["action"] == "restored", said
    met.operated.cluster.node(2).run(["kill", "-9", str(said["pid"])])
    met.wait(lambda: met.status("clone3")["restartCount"] == 1, "its restart")
    assert met.wait_counted("clone3")[0] == 1
    met.wait_event("clone3", "StartedCold", "a restart starts cold")


def test_a_restore_that_fails_starts_cold_and_says_why(met: Round) -> None:
    digest = met.images("base")["app"].rpartition(":")[2]
    node = met.operated.cluster.node(2)
    memory = next(node.host_path(f"/var/lib/snap/cache/{digest}/checkpoint").glob("mm-*.img"))
    whole = memory.read_bytes()
    memory.write_bytes(whole[:-30])
    try:
        met.restore(Restored("damaged", "base"))
        said = met.outcome("damaged")
    finally:
        memory.write_bytes(whole)
    assert (said["action"], said["code"]) == ("failed", "criu_failed"), said
    assert memory.name in said["reason"] + said["details"]
    assert node.host_path(f"/var/lib/snap/restores/{said['container_id']}/restore.log").is_file()
    assert met.wait_counted("damaged")[0] == 1
    assert met.status("damaged")["restartCount"] == 0
    met.wait_event("damaged", "RestoreFailed", "not restored because")


def test_a_page_daemon_that_dies_early_means_a_cold_start(met: Round) -> None:
    name = _struck(met, "early", striking.is_restoring, signal.SIGKILL)[0]
    met.wait(lambda: "lazy_lost" in met.codes(name), "the loss on record")
    met.wait(lambda: any(line.startswith("ready") for line in met.log(name)), "a cold start")


def test_a_page_daemon_that_dies_late_costs_the_container_its_life(met: Round) -> None:
    name, daemon = _struck(met, "late", striking.is_let_go, signal.SIGSTOP)
    striking.kill([daemon])
    met.wait(lambda: "lazy_lost" in met.codes(name), "the loss on record")
    met.wait(lambda: met.status(name)["restartCount"] > 0, "a restart")
    met.wait(lambda: any(line.startswith("ready") for line in met.log(name)), "a cold start")


def _struck(met: Round, name: str, reached: Any, how: int) -> tuple[str, int]:
    """A lazily restored pod whose daemon was struck in time, and the daemon; it is tried some times."""
    node = met.operated.cluster.node(2)
    for attempt in range(8):
        pod = f"{name}{attempt}"
        with striking.lazy_restore_struck(node, reached, how) as struck:
            met.restore(Restored(pod, "large", asks=pods.LAZY))
            if daemon := struck():
                return pod, daemon
        met.delete(pod)
    raise AssertionError("its memory was there each time before the daemon was struck")


@pytest.mark.parametrize("part", sorted(striking.PARTS))
def test_a_part_of_the_dump_is_killed_and_the_original_goes_on(met: Round, part: str) -> None:
    node = met.operated.cluster.node(1)
    enter = ["nsenter", "-t", str(met.pid("large")), "-n", "--", "iptables"]
    node.run([*enter, "-N", "CRIU"], check=False)  # there already, where this is a second try
    for rule in (["-A", "CRIU", "-j", "DROP"], ["-I", "INPUT", "-j", "CRIU"]):
        node.run([*enter, *rule])  # as a CRIU leaves it that locks the network
    for _ in range(10):
        reached = striking.is_copying(node)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(met.checkpoint, "large")
            assert striking.strike_dump(node, reached, part)
            status, answer = asked.result()
        if status != 200:  # else it was done before it was struck
            break
    assert (status, answer["code"]) == (502, "CHECKPOINT_FAILED"), answer
    assert "runs on" in answer["error"]
    assert "CRIU" not in node.run([*enter, "-S"]).stdout
    ticks = len(met.log("large"))
    met.wait(lambda: len(met.log("large")) > ticks, "more ticks")
    status, answer = met.checkpoint("large")
    assert status == 200, answer


def test_new_connections_wait_no_longer_than_the_freeze(met: Round) -> None:
    address = met.pods()["network"]["status"]["podIP"]
    longest, done = [0.0], threading.Event()

    def connect() -> None:
        for _ in range(60):  # half as many as may wait to be accepted: there may be a second try
            began = time.monotonic()
            socket.create_connection((address, 7001), timeout=10).close()
            longest[0] = max(longest[0], time.monotonic() - began)
            if done.wait(0.05):
                return

    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect)
        try:
            status, answer = met.checkpoint("network")
        finally:
            done.set()
        connecting.result()
    assert status == 200, answer
    assert longest[0] < 1  # a packet that was dropped is sent again after a second


def test_an_open_exec_does_not_fail_the_dump(met: Round) -> None:
    busy = ("sh", "-c", "while :; do sleep 0.01; done")
    argv = met.operated.cluster.argv("exec", "-n", NAMESPACE, "base", "--", *busy)
    with subprocess.Popen(argv) as session:
        try:
            met.wait(lambda: "0.01" in met.exec("base", "ps"), "the session")
            for _ in range(3):
                status, answer = met.checkpoint("base")
                assert status == 200, answer
            assert session.poll() is None
        finally:
            session.kill()


def test_a_paused_container_is_dumped_and_stays_paused(met: Round) -> None:
    node, container = met.operated.cluster.node(1), met.container_id("privileged")
    node.run([*RUNC, "pause", container])
    try:
        status, answer = met.checkpoint("privileged")
        told = json.loads(node.run([*RUNC, "state", container]).stdout)
    finally:
        node.run([*RUNC, "resume", container])
    assert status == 200, answer
    assert told["status"] == "paused"
    before = len(met.says("privileged"))
    met.wait_says("privileged", before + 1)


def test_a_disk_without_room_is_refused(met: Round) -> None:
    node, folder = met.operated.cluster.node(1), "/var/lib/snap/checkpoints"
    node.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", folder])
    try:
        status, answer = met.checkpoint("large")
    finally:
        node.run(["umount", folder])
    assert (status, answer["code"]) == (507, "INSUFFICIENT_STORAGE"), answer
    assert "enlarge the disk" in answer["error"]
