"""Each report says what the images hold; what they are made of is known byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent import errors
from agent.formats.criu_images import PAGE_SIZE
from agent.formats.jobs import AnalyzeSpec, CheckpointId, Progress
from agent.insights import processes
from agent.insights.bounds import Bounds, Stopped
from agent.insights.dump import Dump
from agent.insights.service import MAKERS, Insights, Wish
from tests.fakes.criu_images import HEAP, with_parent, write_dump


def report_of(parts: Path, kind: str, **options: Any) -> dict[str, Any]:
    """A report on ``parts``."""
    bounds = options.pop("bounds", None) or Bounds()
    said: list[Progress] = []
    other = options.pop("other", None)
    wish = Wish(Dump(parts), Dump(other) if other else None, bool(options), bounds, said.append)
    made: dict[str, Any] = json.loads(json.dumps(MAKERS[kind](wish)))
    return made


def test_processes_have_their_command_lines_and_names_of_variables(tmp_path: Path) -> None:
    found = report_of(write_dump(tmp_path), "processes")
    server, gone = found["processes"]
    assert server["command_line"] == ["server", "--port", "6379"]
    assert server["executable"] == "/srv/server"
    assert server["environment"] == [{"name": "HOME"}, {"name": "DB_PASSWORD"}]
    assert "opensesame1" not in json.dumps(found)
    assert (gone["state"], gone["command_line"], gone["environment"]) == ("zombie", None, [])
    children = [{"pid": 7, "command": "gone", "children": []}]
    assert found["tree"] == [{"pid": 1, "command": "server", "children": children}]


def test_values_are_shown_only_when_asked_for(tmp_path: Path) -> None:
    found = report_of(write_dump(tmp_path), "processes", with_values=True)
    assert found["processes"][0]["environment"][1] == {
        "name": "DB_PASSWORD",
        "value": "opensesame1",
    }


def test_a_title_that_runs_over_the_variables_is_one_argument(tmp_path: Path) -> None:
    parts = write_dump(tmp_path, arguments=b"server: w", variables=b"aiting on 6379\0\0\0")
    server = report_of(parts, "processes")["processes"][0]
    assert server["command_line"] == ["server: waiting on 6379"]
    assert server["environment"] == []


def test_mappings_say_how_much_of_them_was_dumped(tmp_path: Path) -> None:
    found = report_of(write_dump(tmp_path), "memory")
    program, heap, stack = found["processes"][0]["mappings"]
    assert (program["path"], program["kind"]) == ("/srv/caf\\xe9", "file")
    assert program["dumped_bytes"] == 0
    assert (heap["path"], heap["dumped_bytes"], heap["start"]) == ("[heap]", 8192, f"{HEAP:#x}")
    assert (stack["path"], stack["permissions"]) == ("[stack]", "rw-p")
    assert found["totals"]["dumped_bytes"] == 3 * PAGE_SIZE


def test_files_and_mounts_are_named(tmp_path: Path) -> None:
    found = report_of(write_dump(tmp_path), "files")
    paths = [file["path"] for file in found["processes"][0]["files"]]
    assert paths == [
        "/srv/caf\\xe9",
        "pipe:[99]",
        "TCP 127.0.0.1:6379 -> 127.0.0.2:50000 ESTABLISHED socket:[7]",
        "UNIX @bus\\xff LISTEN socket:[8]",
        "NETLINK_ROUTE CLOSE socket:[9]",
        "anon_inode:[eventfd]",
    ]
    assert found["mounts"][0]["destination"] == "/dev/shm"
    assert found["mounts"][0]["filesystem"] == "tmpfs"


def test_sockets_have_addresses_ports_and_states(tmp_path: Path) -> None:
    inet, unix, netlink = report_of(write_dump(tmp_path), "sockets")["processes"][0]["sockets"]
    assert (inet["family"], inet["source_address"], inet["source_port"]) == (
        "AF_INET",
        "127.0.0.1",
        6379,
    )
    assert (unix["source_address"], unix["state"], unix["protocol"]) == (
        "@bus\\xff",
        "LISTEN",
        None,
    )
    assert (netlink["protocol"], netlink["source_port"]) == ("NETLINK_ROUTE", 41)


def test_volatility_has_its_plugins_and_columns(tmp_path: Path) -> None:
    found = report_of(write_dump(tmp_path), "volatility")
    plugins = ["pslist", "pstree", "psaux", "maps", "lsof", "sockstat", "envars", "truncated"]
    assert [*found, "truncated"] == plugins
    assert found["psaux"][0]["ARGS"] == "server --port 6379"
    assert found["pstree"][0]["__children"][0]["PID"] == 7
    assert found["sockstat"][0]["Source Addr"] == "127.0.0.1"
    assert {row["VALUE"] for row in found["envars"]} == {"********"}
    assert report_of(tmp_path, "volatility", with_values=True)["envars"][0]["VALUE"] == "/root"


def test_the_summary_shows_nothing_out_of_memory(tmp_path: Path) -> None:
    found = report_of(write_dump(tmp_path, heap=b"hunter2"), "summary")
    assert found["counts"] == {
        "processes": 2,
        "threads": 3,
        "open_files": 6,
        "sockets": 3,
        "mappings": 3,
    }
    text = json.dumps(found)
    assert not any(word in text for word in ("hunter2", "--port", "opensesame1", "DB_PASSWORD"))


def test_pages_in_parents_are_read_too(tmp_path: Path) -> None:
    content = b"first page".ljust(PAGE_SIZE, b"\0") + b"second page"
    flat, chained = (
        write_dump(tmp_path / "a", heap=content),
        write_dump(tmp_path / "b", heap=content),
    )
    with_parent(chained)
    for parts in (flat, chained):
        dump = Dump(parts)
        memory = dump.memory(dump.task(dump.nodes[0]))
        assert memory is not None
        with memory:
            got = memory.read(HEAP + 4, HEAP + PAGE_SIZE + 11)
        assert got == content[4:]
    assert report_of(flat, "diff", other=chained)["pages"]["totals"] == {
        "changed": 0,
        "added": 0,
        "removed": 0,
        "equal": 3,
    }


def test_a_diff_tells_what_changed(tmp_path: Path) -> None:
    old = write_dump(tmp_path / "old", heap=b"one")
    new = write_dump(tmp_path / "new", heap=b"two")
    (new / "checkpoint" / "fdinfo-3.img").unlink()
    found = report_of(old, "diff", other=new)
    assert found["processes"] == {"added": [], "removed": [], "in_both": 2}
    assert len(found["files"]["removed"]) == 6
    assert len(found["sockets"]["removed"]) == 3
    assert found["pages"]["totals"] == {"changed": 1, "added": 0, "removed": 0, "equal": 2}


def test_a_report_that_is_full_says_so(tmp_path: Path) -> None:
    bounds = Bounds(rows=2)
    found = report_of(write_dump(tmp_path), "files", bounds=bounds)
    assert bounds.truncated
    assert len(found["processes"]) + sum(len(p["files"]) for p in found["processes"]) <= 2


def test_a_deep_tree_stays_readable(tmp_path: Path) -> None:
    dump = Dump(write_dump(tmp_path))
    node = dump.nodes[0]
    chain = [type(node)(pid, pid - 1, 1, 1, (pid,)) for pid in range(1, 20_000)]
    (root,) = processes.tree(chain, {one.pid: "x" for one in chain})
    assert len(json.dumps(root)) > 20_000


async def test_wrong_wishes_are_refused(tmp_path: Path) -> None:
    class Shelf:
        def parts(self, checkpoint_id: CheckpointId) -> Path:
            return tmp_path / checkpoint_id

    write_dump(tmp_path / "A")
    insights = Insights(Shelf())
    for wrong in (
        AnalyzeSpec(CheckpointId("A"), "everything"),
        AnalyzeSpec(CheckpointId("A"), "diff"),
        AnalyzeSpec(CheckpointId("A"), "summary", "B"),
    ):
        with pytest.raises(errors.Refused) as refusal:
            await insights.analyze(wrong, lambda _: None)
        assert refusal.value.code == errors.VALIDATION_ERROR
    made = json.loads(
        await insights.analyze(AnalyzeSpec(CheckpointId("A"), "summary"), lambda _: None)
    )
    assert made["truncated"] is False


def test_a_stopped_analysis_ends(tmp_path: Path) -> None:
    bounds = Bounds()
    bounds.stop()
    with pytest.raises(Stopped):
        report_of(write_dump(tmp_path), "secrets", bounds=bounds)
