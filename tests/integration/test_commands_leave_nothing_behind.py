"""Commands of the node: bounded in time and output, and gone with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import errors
from agent.runtimes import commands, detached
from agent.runtimes.commands import Host

HERE = Host()


def is_gone(pid: int) -> bool:
    """Whether ``pid`` ended (a zombie that waits for somebody else's init counts)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def cgroups_of(pid: int) -> str:
    """The cgroups of a process."""
    return Path(f"/proc/{pid}/cgroup").read_text()


async def until_gone(pid: int) -> None:
    """Wait for the end of ``pid``."""
    async with asyncio.timeout(60):
        while not is_gone(pid):  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.01)


async def test_output_and_status() -> None:
    done = await commands.run(
        HERE, ["sh", "-c", "cat; echo no >&2; exit 3"], timeout_s=60, stdin=b"x"
    )
    assert (done.status, done.stdout, done.stderr_tail) == (3, b"x", "no\n")
    with pytest.raises(errors.CommandFailed, match="It failed") as failure:
        done.check("It failed.")
    assert failure.value.log_tail == "no\n"


async def test_only_the_end_of_stderr_is_kept() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done"
    done = await commands.run(HERE, ["sh", "-c", script], timeout_s=60)
    assert len(done.stderr_tail) == commands.TAIL_BYTES
    assert done.stderr_tail.endswith("line 19999\n")


async def test_the_agents_environment_stays_with_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAP_AGENT_TOKEN", "secret")
    done = await commands.run(HERE, ["env"], timeout_s=60, env={"HOME": "/x"})
    assert "secret" not in done.text
    assert "HOME=/x" in done.text


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(errors.CommandFailed) as failure:
        await commands.run(HERE, ["no-such-program"], timeout_s=60)
    assert failure.value.status is None


async def test_too_slow_a_command_and_its_children_are_killed(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(errors.Retryable) as failure:
        await commands.run(HERE, ["sh", "-c", script], timeout_s=3)
    assert failure.value.code == errors.TIMEOUT
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_command_and_its_children_are_killed(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! >{tmp_path}/pid.tmp; mv {tmp_path}/pid.tmp {tmp_path}/pid; wait"
    call = asyncio.create_task(commands.run(HERE, ["sh", "-c", script], timeout_s=600))
    async with asyncio.timeout(60):
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_what_must_be_finished_is_finished_although_cancelled() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append("work")

    call = asyncio.create_task(commands.finish(work(), 5))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert done == ["work"]


async def test_what_can_not_be_finished_is_given_up() -> None:
    began = time.monotonic()
    await commands.finish(asyncio.sleep(1000), 0.05)
    assert time.monotonic() - began < 100


async def test_a_host_is_seen_through_its_root() -> None:
    assert Host(Path("/host")).path("/var/lib/x") == Path("/host/var/lib/x")
    done = await commands.run(Host(prefix=("env", "A=b")), ["sh", "-c", "echo $A"], timeout_s=60)
    assert done.text == "b"


@pytest.fixture
def _no_cgroup_afterwards() -> Iterator[None]:
    """Remove the cgroup that detached programs were put into on this machine, if nothing is in it."""
    yield
    for folder in [*Path("/sys/fs/cgroup").glob(f"*/{detached.CGROUP}")]:
        with contextlib.suppress(OSError):  # an agent of this machine uses it
            folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="cgroups need root")
@pytest.mark.usefixtures("_no_cgroup_afterwards")
async def test_a_detached_program_lives_in_its_own_session_and_is_stopped_whole(
    tmp_path: Path,
) -> None:
    script = tmp_path / "program"
    script.write_text(
        "#!/bin/sh\nread -r s </proc/$$/stat; set -- ${s##*) }\n"
        f"trap '' TERM; sleep 1000 &\necho $$ ${{20}} >{tmp_path}/pid.tmp\n"
        f"mv {tmp_path}/pid.tmp {tmp_path}/pid\nwhile :; do sleep 1000; done\n"
    )
    script.chmod(0o755)
    await detached.start(HERE, [str(script)], str(tmp_path / "log"))
    async with asyncio.timeout(60):
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.01)
    process = detached.read_pid(HERE, str(tmp_path / "pid"))
    assert process
    assert detached.is_alive(HERE, process)
    assert len(detached.members(HERE, process)) >= 2
    assert detached.CGROUP in cgroups_of(process.pid)
    assert not detached.is_alive(HERE, detached.Process(process.pid, process.started + 1))
    assert not await detached.stop(HERE, process, grace_s=0.3)
    assert detached.members(HERE, process) == ()
    assert not detached.is_alive(HERE, process)
