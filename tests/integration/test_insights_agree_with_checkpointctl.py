"""Real dumps, looked into over REST: what is told agrees with checkpointctl, with /proc, and keeps secrets."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import secrets
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.devnode.node import Node
from deploy.devnode.pods import Pod, Pods, PodSpec
from deploy.devnode.world import Deployment
from dev_tools.workloads import WORKLOADS, Workload

pytestmark = pytest.mark.node

PIECE: Final = 1 << 20
NAMED: Final = ("REG", "PIPE")  # checkpointctl has no path for the others
# what it keeps secret is nowhere but in its own memory: it begins anew with a variable made of its seed
PROGRAM: Final = """
import hashlib, os, socket, sys, time
if "DB_PASSWORD" not in os.environ:
    made = hashlib.sha256(os.environ["SEED"].encode()).hexdigest()[:18]
    os.execvpe("python3", sys.orig_argv, os.environ | {"DB_PASSWORD": made})
tcp = socket.create_server(("127.0.0.1", 7001))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 7002))
unix = socket.socket(socket.AF_UNIX); unix.bind("/tmp/bus"); unix.listen()
hidden = socket.socket(socket.AF_UNIX); hidden.bind("\\0hidden"); hidden.listen()
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); netlink.bind((0, 0))
half = os.environ["DB_PASSWORD"]
token = bytearray(("ghp_" + half + half).encode())
with open("/etc/app.conf", "w") as file: file.write("url = https://app:" + half + "@db/x\\n")
child = os.fork()
print("ready", flush=True)
while True: time.sleep(1)
"""


def until(condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
    """Wait for ``condition``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def download(deployed: Deployment, made: dict[str, Any], target: Path) -> None:
    """The archive as a user gets it, into ``target``."""
    host = urllib.parse.urlsplit(deployed.rest.url).netloc
    path = f"/checkpoint/download/{made['pod_name']}/{made['filename']}"
    with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as link:
        link.request("GET", path, headers={"Authorization": f"Bearer {deployed.rest.token}"})
        with link.getresponse() as answer, target.open("wb") as file:
            assert answer.status == 200, answer.read()
            while piece := answer.read(PIECE):
                file.write(piece)


def checkpoint(deployed: Deployment, pod: Pod) -> dict[str, Any]:
    """Checkpoint ``pod``."""
    body = {"pod_name": pod.spec.name, "namespace": pod.spec.namespace}
    made: dict[str, Any] = deployed.rest.post("/checkpoint/kubelet/checkpoint", body)
    return made


def insights(deployed: Deployment, made: dict[str, Any], kind: str, **options: Any) -> Any:
    """A report on a checkpoint."""
    body = {"checkpoint_path": made["checkpoint_path"], "analysis_type": kind, **options}
    answer = deployed.rest.post("/checkpoint/insights", body)
    assert answer["success"] is True
    assert answer["truncated"] is False
    return answer["insights"]


def inspected(deployed: Deployment, node: Node, made: dict[str, Any]) -> dict[str, Any]:
    """What checkpointctl says of the archive."""
    inside = f"/var/tmp/{made['filename']}"
    try:
        download(deployed, made, node.host_path(inside))
        argv = ["checkpointctl", "inspect", inside, "--all", "--format", "json"]
        told: dict[str, Any] = json.loads(node.run(argv).stdout)[0]
    finally:
        node.host_path(inside).unlink(missing_ok=True)
    return told


def from_dialect_o(deployed: Deployment, made: dict[str, Any]) -> dict[str, Any]:
    """What the older server's clients are told in checkpointctl's shape."""
    name = made["filename"].removesuffix(".tar")
    body = {"pod_name": made["pod_name"], "checkpoint_name": name}
    deployed.rest.post("/checkpoint/checkpointctl", body)
    query = urllib.parse.urlencode(body)
    (told,) = deployed.rest.get(f"/checkpoint/checkpointctl/information?{query}")["logs"]
    return dict(told)


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Everything that checkpointctl reads right."""
    assert theirs.keys() - {"sockets"} == ours.keys() - {"sockets"}
    whose = ("container_name", "image", "id", "runtime", "engine", "created", "checkpointed")
    for name in (*whose, "checkpoint_size", "statistics"):
        assert theirs[name] == ours[name], name
    assert without_lines(theirs["process_tree"]) == without_lines(ours["process_tree"])
    assert theirs["mounts"] == ours["mounts"]
    for their, our in zip(theirs["file_descriptors"], ours["file_descriptors"], strict=True):
        assert their["pid"] == our["pid"]
        kinds = [(f["type"], f["fd"]) for f in their["open_files"]]
        assert kinds == [(f["type"], f["fd"]) for f in our["open_files"]]
        paths = [f["path"] for f in their["open_files"] if f["type"] in ("", *NAMED)]
        assert paths == [f["path"] for f in our["open_files"] if f["type"] in ("", *NAMED)]
    assert flat_sockets(theirs) == flat_sockets(ours)


def without_lines(row: dict[str, Any]) -> tuple[Any, ...]:
    """A tree without command lines: checkpointctl gives blanks for those of newer CRIUs."""
    children = tuple(without_lines(child) for child in row.get("children", ()))
    return row["pid"], row["command"], children


def flat_sockets(told: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The internet sockets: (pid, protocol, state, source, port)."""
    return [
        (process["pid"], one["protocol"], one["data"].get("state"), *where(one["data"]))
        for process in told.get("sockets") or ()
        for one in process["open_sockets"]
        if one.get("protocol") in ("TCP", "UDP")
    ]


def span(line: str) -> tuple[int, int]:
    """The addresses of a line of /proc/<pid>/maps."""
    start, _, end = line.split(maxsplit=1)[0].partition("-")
    return int(start, 16), int(end, 16)


def where(data: dict[str, Any]) -> tuple[Any, Any]:
    """Where a socket is bound."""
    return data.get("src"), data.get("src_port", 0)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.spec.name)
def test_reports_agree_with_checkpointctl_and_the_live_process(
    deployed: Deployment, node1: Node, pods1: Pods, workload: Workload
) -> None:
    pod = pods1.run(workload.spec)
    workload.note(pods1, pod)
    pid = pods1.info(pod)["pid"]
    maps = node1.run(["cat", f"/proc/{pid}/maps"]).stdout.splitlines()
    arguments = node1.run(["cat", f"/proc/{pid}/cmdline"]).stdout.rstrip("\0").split("\0")
    made = checkpoint(deployed, pod)
    compare(inspected(deployed, node1, made), from_dialect_o(deployed, made))

    (first, *_) = insights(deployed, made, "processes")["processes"]
    assert (first["pid"], first["command_line"]) == (1, arguments)
    memory = insights(deployed, made, "memory")
    mapped = {(int(m["start"], 16), int(m["end"], 16)) for m in memory["processes"][0]["mappings"]}
    live = {span(line) for line in maps if "[v" not in line and "[stack]" not in line}
    assert live <= mapped
    sizes = insights(deployed, made, "summary")["sizes"]
    assert memory["totals"]["dumped_bytes"] == sizes["memory_pages_bytes"]
    found = insights(deployed, made, "volatility")
    assert found["psaux"][0]["ARGS"] == " ".join(arguments)
    assert insights(deployed, made, "files")["mounts"]


def test_sockets_of_every_kind_and_planted_secrets_are_found(
    deployed: Deployment, node1: Node, pods1: Pods
) -> None:
    seed = secrets.token_hex(9)
    half = hashlib.sha256(seed.encode()).hexdigest()[:18]
    program = ("-c", PROGRAM)
    spec = PodSpec("holder", "hog", command=("python3",), args=program, env={"SEED": seed})
    pod = pods1.run(spec)
    until(lambda: "ready" in pod.lines())
    made = checkpoint(deployed, pod)
    compare(inspected(deployed, node1, made), from_dialect_o(deployed, made))

    rows = insights(deployed, made, "sockets")["processes"]
    assert [row["pid"] for row in rows][:1] == [1]
    assert len(rows) == 2
    found = {
        (s["family"], s["protocol"], s["source_address"], s["source_port"], s["state"])
        for s in rows[0]["sockets"]
    }
    assert {
        ("AF_INET", "TCP", "127.0.0.1", 7001, "LISTEN"),
        ("AF_INET", "UDP", "127.0.0.1", 7002, "CLOSE"),
        ("AF_UNIX", None, "/tmp/bus", None, "LISTEN"),
        ("AF_UNIX", None, "@hidden", None, "LISTEN"),
    } <= found
    assert any(family == "AF_NETLINK" for family, *_ in found)

    told = insights(deployed, made, "secrets")
    places = {(row["kind"], row["place"]["type"]) for row in told["findings"]}
    assert ("github_token", "memory") in places
    assert ("password_in_url", "file") in places
    assert ("secret_variable", "environment") in places
    files = [row["place"] for row in told["findings"] if row["place"]["type"] == "file"]
    assert [(f["archive"], f["path"].removeprefix("./")) for f in files] == [
        ("rootfs-diff.tar", "etc/app.conf")
    ]
    everything = json.dumps(
        [told, insights(deployed, made, "summary"), insights(deployed, made, "processes")["tree"]]
    )
    assert half not in everything
    shown = insights(deployed, made, "processes", with_values=True)["processes"][0]
    assert {"name": "DB_PASSWORD", "value": half} in shown["environment"]
    hidden = insights(deployed, made, "processes")["processes"][0]
    assert {"name": "DB_PASSWORD"} in hidden["environment"]
    for log in (deployed.agents[1].log, deployed.control_plane.log):
        assert half not in log.read_text(errors="replace")
    assert not holding(deployed.control_plane.data, half)
    until(lambda: not holding(node1.host_path("/var/lib/snap/jobs"), half))


def holding(folder: Path, value: str) -> list[str]:
    """The files below ``folder`` that hold ``value``."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file.name for file in files if value.encode() in file.read_bytes()]


def test_a_diff_tells_what_happened_between_two_checkpoints(
    deployed: Deployment, pods1: Pods
) -> None:
    pod = pods1.run(PodSpec("store", "redis"))
    until(lambda: any("Ready to accept" in line for line in pod.lines()))
    before = checkpoint(deployed, pod)
    pods1.exec(pod, "redis-cli", "set", "key", "x" * 100_000)
    after = checkpoint(deployed, pod)
    found = insights(deployed, before, "diff", other=after["checkpoint_id"])
    assert found["processes"]["in_both"] == 1
    assert found["sockets"] == {"added": [], "removed": []}
    pages = found["pages"]["totals"]
    assert pages["changed"] + pages["added"] >= 24  # the value alone has as many
    assert pages["equal"] > 100
