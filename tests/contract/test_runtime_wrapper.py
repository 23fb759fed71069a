"""What is agreed between ``snap-runc.sh`` and the agent, with the script itself and the agent's inbox.

The runtime is a script that notes how it was called; everything else is real: lock, FIFO, files, signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.restore import inbox
from agent.restore.inbox import Answer, Inbox, Request, Verb
from agent.restore.undoing import UndoList

SCRIPT = Path(__file__).parents[2] / "agent/restore/snap-runc.sh"
ID = "c0ffee"
RUNTIME = r"""#!/bin/sh
printf '%s\n' "$*" >>{notes}
for word; do case $word in
  restore) read -r line && echo "stdin: $line"; printf %s "$(cat {folder}/pid)" >{folder}/pid-file
    exit $(cat {folder}/restore-status) ;;
  ps) cat {folder}/pids; exit 0 ;;
  state) printf '{{\n  "id": "x",\n  "status": "running"\n}}\n'; exit 0 ;;
esac; done
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """The script in a folder of its own, with a bundle and images."""

    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def call(self, *words: str, stdin: str = "hello\n") -> asyncio.Task[str]:
        """Call the wrapper with the runtime's usual global options; gives what it wrote."""
        argv = [str(self.folder / "snap-runc"), "--root", "/r r", "--log=/l", *words, ID]

        async def run() -> str:
            def blocking() -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    argv, input=stdin, capture_output=True, text=True, timeout=30, check=False
                )

            done = await asyncio.to_thread(blocking)
            assert done.stderr == ""
            return done.stdout

        return asyncio.create_task(run())

    def create(self, pid_file: str = "/p") -> asyncio.Task[str]:
        return self.call("create", "--bundle", str(self.bundle), "--pid-file", pid_file)

    def notes(self) -> list[str]:
        """How the runtime was called since the last time."""
        file = self.folder / "notes"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def state(self, name: str) -> Path:
        return self.run_dir / f"state/{ID}.{name}"

    def join(self, lines: str, group: str, *pids: int) -> None:
        """Have a container restored whose first process has ``lines`` in its ``cgroup`` file."""
        self.state("restored").write_text(f"{pids[0]}\n")
        self.lay_out(lines, group, *pids)

    def lay_out(self, lines: str, group: str, *pids: int) -> None:
        """Have the kernel's files say so."""
        proc = self.folder / f"proc/{pids[0]}"
        members = self.folder / "sys/fs/cgroup" / group
        proc.mkdir(parents=True)
        members.mkdir(parents=True)
        (proc / "cgroup").write_text(lines)
        (members / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def annotate(self, kind: str = "container") -> None:
        annotations = {
            "snap.weaversoft.io/checkpoint": '{"app": "r/x@sha256:0"}',
            "io.kubernetes.cri.container-type": kind,
        }
        text = json.dumps({"annotations": annotations, "process": {}})
        (self.bundle / "config.json").write_text(text)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    script = SCRIPT.read_text().replace("run=/run/snap", f"run={made.run_dir}")
    for real in ("/proc/$first", "/sys/fs/cgroup"):
        assert real in script
        script = script.replace(real, f"{tmp_path}{real}")
    (tmp_path / "snap-runc").write_text(script)
    runtime = RUNTIME.format(notes=tmp_path / "notes", folder=tmp_path)
    (tmp_path / "runtime").write_text(runtime)
    for name in ("snap-runc", "runtime"):
        (tmp_path / name).chmod(0o755)
    (tmp_path / "snap-runc.real").write_text(f"{tmp_path}/runtime\n")
    (tmp_path / "restore-status").write_text("0")
    (tmp_path / "pid").touch()
    for folder in ("run/requests", "run/state", "bundle", "images", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "images/inventory.img").touch()
    made.annotate()
    return made


@asynccontextmanager
async def agent(bench: Bench) -> AsyncIterator[tuple[Inbox, asyncio.Queue[Request]]]:
    """Hold the lock and take requests as they come."""
    box, requests = Inbox(bench.run_dir / "requests"), asyncio.Queue[Request]()

    async def take() -> None:
        while True:
            for file in box.waiting():
                if request := box.take(file):
                    requests.put_nowait(request)
            await asyncio.sleep(0.005)

    async with inbox.lock(bench.run_dir / "agent.lock"):
        taking = asyncio.create_task(take())
        yield box, requests
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking


def restoring(bench: Bench) -> Answer:
    return Answer(restore=True, images=f"{bench.folder}/images", work=f"{bench.folder}/work")


@contextmanager
def a_stopped_process() -> Iterator[int]:
    """As CRIU leaves one with leave-stopped."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        os.kill(process.pid, signal.SIGSTOP)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def goes_on(pid: int) -> bool:
    """Whether ``pid`` sleeps, not stopped, within 5 s."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if ") S " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.01)
    return False


PLAIN = "--root /r r --log=/l create --bundle {0}/bundle --pid-file /p " + ID


@pytest.mark.parametrize(
    "words", [["kill"], ["exec", "--process", "f"], ["start"], ["state"], ["delete", "--force"]]
)
async def test_what_is_not_ours_reaches_the_runtime_untouched(
    bench: Bench, words: list[str]
) -> None:
    await bench.call(*words)
    assert bench.notes() == [" ".join(["--root /r r --log=/l", *words, ID])]


async def test_without_an_agent_it_starts_cold_at_once(bench: Bench) -> None:
    began = time.monotonic()
    await bench.create()
    assert time.monotonic() - began < 2
    assert bench.notes() == [PLAIN.format(bench.folder)]
    assert not list((bench.run_dir / "requests").iterdir())


async def test_sandboxes_and_plain_containers_are_not_asked_about(bench: Bench) -> None:
    async with agent(bench) as (_, requests):
        bench.annotate("sandbox")
        await bench.create()
        (bench.bundle / "config.json").write_text("{}")
        await bench.create()
        assert requests.empty()
    assert bench.notes() == [PLAIN.format(bench.folder)] * 2


async def test_a_restore_gets_the_same_options_and_the_containers_own_stdio(bench: Bench) -> None:
    async with agent(bench) as (box, requests):
        creating = bench.create()
        request = await asyncio.wait_for(requests.get(), 5)
        assert request.verb is Verb.ASK
        assert request.bundle == str(bench.bundle)
        assert await box.answer(ID, restoring(bench), within_s=5)
        assert await creating == "stdin: hello\n"
    (noted,) = bench.notes()
    assert noted == (
        f"--root /r r --log=/l restore --detach --bundle {bench.bundle} --pid-file /p --file-locks "
        f"--image-path {bench.folder}/images --work-path {bench.folder}/work {ID}"
    )
    assert bench.state("restored").exists()


async def test_the_restored_process_is_known_by_the_runtimes_pid_file(bench: Bench) -> None:
    with a_stopped_process() as pid:
        (bench.folder / "pid").write_text(str(pid))
        bench.lay_out(*V1, pid)
        async with agent(bench) as (box, requests):
            creating = bench.create(f"{bench.folder}/pid-file")
            await asyncio.wait_for(requests.get(), 5)
            assert await box.answer(ID, restoring(bench), within_s=5)
            await creating
        bench.notes()
        await bench.call("start")
        assert await asyncio.to_thread(goes_on, pid)
    assert bench.notes() == []  # nobody asked the runtime whom to let go


async def test_until_it_is_started_a_restored_container_is_created(bench: Bench) -> None:
    bench.state("restored").touch()
    assert '"status": "created"' in await bench.call("state")
    with a_stopped_process() as pid:
        (bench.folder / "pids").write_text(f"[{pid}]")
        await bench.call("start")
        assert await asyncio.to_thread(goes_on, pid)
    assert '"status": "running"' in await bench.call("state")
    asked = (bench.run_dir / f"requests/{ID}.ask").read_text()
    assert asked.startswith("verb=started\n")  # for the next agent: there is none now


async def test_starting_waits_for_the_pods_hook(bench: Bench) -> None:
    bench.state("restored").touch()
    bench.state("hook").write_text("20\n")
    with a_stopped_process() as pid:
        (bench.folder / "pids").write_text(f"[{pid}]")
        async with agent(bench) as (box, requests):
            starting = bench.call("start")
            assert (await asyncio.wait_for(requests.get(), 5)).verb is Verb.STARTED
            assert await asyncio.to_thread(goes_on, pid)  # the hook needs it to run
            assert not starting.done()
            assert await box.answer(ID, Answer(restore=False), within_s=5)
            assert await asyncio.wait_for(starting, 5) == ""
    assert not list((bench.run_dir / "requests").iterdir())
    assert not bench.state("hook").exists()


@pytest.mark.parametrize("patience", ["1", "", "1; touch evil"])
async def test_starting_waits_for_no_hook_for_ever(bench: Bench, patience: str) -> None:
    bench.state("restored").touch()
    bench.state("hook").write_text(patience)
    with a_stopped_process() as pid:
        (bench.folder / "pids").write_text(f"[{pid}]")
        assert await asyncio.wait_for(bench.call("start"), 15) == ""
        assert await asyncio.to_thread(goes_on, pid)
    assert not list((bench.run_dir / "requests").glob("*.answer"))


V1 = ("9:pids:/pod/c0ffee\n5:devices:/pod/c0ffee\n0::/\n", "devices/pod/c0ffee")
V2 = ("0::/pod/c0ffee\n", "pod/c0ffee")


@pytest.mark.parametrize(("lines", "group"), [V1, V2], ids=["cgroup v1", "cgroup v2"])
async def test_whom_to_let_go_is_read_from_the_cgroup(bench: Bench, lines: str, group: str) -> None:
    with a_stopped_process() as first, a_stopped_process() as second:
        bench.join(lines, group, first, second)
        await bench.call("start")
        assert await asyncio.to_thread(goes_on, first)
        assert await asyncio.to_thread(goes_on, second)
    assert bench.notes() == []


@pytest.mark.parametrize(
    ("lines", "group"),
    [
        pytest.param("0::/pod/c0ffee\n", "pod/c0ffee/below", id="cgroups below its own"),
        pytest.param("0::/pod\n", "pod", id="not a cgroup of its own"),
        pytest.param("0::/pod/c0ffee\n", "elsewhere", id="mounted elsewhere"),
        pytest.param("", "pod/c0ffee", id="gone"),
    ],
)
async def test_in_doubt_the_runtime_says_whom_to_let_go(
    bench: Bench, lines: str, group: str
) -> None:
    with a_stopped_process() as first, a_stopped_process() as second:
        bench.join(lines, group, first)
        (bench.folder / "pids").write_text(f"[{first},{second}]")
        await bench.call("start")
        assert await asyncio.to_thread(goes_on, first)
        assert await asyncio.to_thread(goes_on, second)


async def test_a_failed_restore_is_undone_and_started_cold(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "restore-status").write_text("1")
    made, theirs, kept = (tmp_path / name for name in ("made", "theirs", "kept"))
    made.mkdir()
    theirs.write_text("the checkpoint's")
    kept.write_text("the pod's")
    undo = UndoList(bench.state("undo"))
    undo.begin()
    undo.remove(str(made))
    undo.put_back(str(kept), str(theirs))
    async with agent(bench) as (box, requests):
        creating = bench.create()
        await asyncio.wait_for(requests.get(), 5)
        assert await box.answer(ID, restoring(bench), within_s=5)
        await creating
        assert (await asyncio.wait_for(requests.get(), 5)).verb is Verb.FAILED
    assert [line.split()[4] for line in bench.notes()] == ["restore", "delete", "create"]
    assert not made.exists()
    assert theirs.read_text() == "the pod's"
    assert not bench.state("restored").exists()
    assert not bench.state("undo").exists()


CGROUPFS = ("/pod/c0ffee", "pod/c0ffee")
SYSTEMD = (
    "kubepods-burstable-pod1_2.slice:cri-containerd:c0ffee",
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-c0ffee.scope",
)


@pytest.mark.parametrize("root", ["devices/", ""], ids=["cgroup v1", "cgroup v2"])
@pytest.mark.parametrize(("named", "group"), [CGROUPFS, SYSTEMD], ids=["cgroupfs", "systemd"])
async def test_the_cgroups_of_a_failed_restore_are_removed(
    bench: Bench, root: str, named: str, group: str
) -> None:
    (bench.folder / "restore-status").write_text("1")
    config = bench.bundle / "config.json"
    spec = json.loads(config.read_text()) | {"linux": {"cgroupsPath": named}}
    config.write_text(json.dumps(spec, separators=(",", ":")))
    own = bench.folder / f"sys/fs/cgroup/{root}{group}"
    another = bench.folder / f"sys/fs/cgroup/{root}elsewhere/{ID}"
    for folder in (own / "below/it", another):
        folder.mkdir(parents=True)
    async with agent(bench) as (box, requests):
        creating = bench.create()
        await asyncio.wait_for(requests.get(), 5)
        assert await box.answer(ID, restoring(bench), within_s=5)
        await creating
    assert not own.exists()
    assert own.parent.exists()
    assert another.exists()  # nothing but its own is looked at


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("reason=no\naction=cold\n", id="cold"),
        pytest.param("images={0}/images\nwork={0}/work\n", id="cut short"),
        pytest.param("images={0}/none\nwork={0}/work\naction=restore\n", id="no images"),
        pytest.param("images={0}/x/../images\nwork={0}/work\naction=restore\n", id="dots"),
        pytest.param("images=$(touch {0}/evil)\nwork=`id`\naction=restore\n", id="code"),
        pytest.param("", id="empty"),
    ],
)
async def test_every_other_answer_is_cold(bench: Bench, lines: str) -> None:
    async with agent(bench) as (box, requests):
        creating = bench.create()
        await asyncio.wait_for(requests.get(), 5)
        fifo = box.folder / f"{ID}.answer"
        await asyncio.to_thread(fifo.write_text, lines.format(bench.folder))
        await creating
    assert bench.notes() == [PLAIN.format(bench.folder)]
    assert not (bench.folder / "evil").exists()


async def test_deleting_a_restored_container_forgets_it(bench: Bench) -> None:
    for name in ("restored", "criu.conf", "json"):
        bench.state(name).touch()
    await bench.call("delete")
    assert bench.notes() == [f"--root /r r --log=/l delete --force {ID}"]
    assert not list((bench.run_dir / "state").iterdir())


async def test_only_one_agent_answers(bench: Bench) -> None:
    async with agent(bench):
        with pytest.raises(Exception, match="another agent"):
            async with inbox.lock(bench.run_dir / "agent.lock", timeout_s=0.1):
                pass


async def test_a_question_is_taken_up_by_the_next_agent(bench: Bench) -> None:
    async with agent(bench) as (_, requests):
        creating = bench.create()
        first = await asyncio.wait_for(requests.get(), 5)
    async with agent(bench) as (box, requests):
        box.take_up()
        assert await asyncio.wait_for(requests.get(), 5) == first  # its age too
        assert await box.answer(ID, restoring(bench), within_s=5)
        assert await creating == "stdin: hello\n"
    assert not list((bench.run_dir / "requests").iterdir())


async def test_an_answered_question_is_not_asked_again(bench: Bench) -> None:
    box = Inbox(bench.run_dir / "requests")
    file = box.folder / f"{ID}.ask"
    file.write_text(f"verb=ask\nid={ID}\nbundle=/b\n")
    assert box.take(file)
    assert not await box.answer(ID, Answer(restore=False), within_s=0)  # nobody waits any more
    box.take_up()
    assert not list(box.waiting())


async def test_an_answer_for_nobody_is_noticed(bench: Bench) -> None:
    box = Inbox(bench.run_dir / "requests")
    assert not await box.answer(ID, Answer(restore=False), within_s=0.1)
    os.mkfifo(box.folder / f"{ID}.answer")
    assert not await box.answer(ID, Answer(restore=False), within_s=0.1)


@pytest.mark.parametrize(
    "text",
    ["", "verb=ask\n", "verb=hack\nid=c0ffee\nbundle=/b\n", f"verb=ask\nid={ID}\nbundle=/a/../b\n"],
)
def test_strange_requests_are_dropped(bench: Bench, text: str) -> None:
    box = Inbox(bench.run_dir / "requests")
    file = box.folder / f"{ID}.ask"
    file.write_text(text)
    assert box.take(file) is None
    assert not file.exists()
