"""Running the node's own tools, from the node itself or from a pod that enters it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent import errors

# first what was installed for us: a CRIU for nodes that have none, or one that is too old
PATH: Final = "/opt/snap/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TAIL_BYTES: Final = 16 << 10
STDOUT_BYTES: Final = (
    64 << 20
)  # more than any tool has to say; a runaway one must not eat the agent
_REAP_S: Final = 5.0
_NO_LINKS: Final = ("/proc/", "/sys/")  # the kernel's own links lead where they should
_MOST_LINKS: Final = 20


@dataclass(frozen=True, slots=True)
class Host:
    """The node, seen from the agent.

    Attributes:
        root: where the node's file system is mounted here.
        prefix: what to put in front of a command so that it runs on the node (``nsenter -t 1 …``).
    """

    root: Path = Path("/")
    prefix: tuple[str, ...] = ()

    def path(self, absolute: str | os.PathLike[str]) -> Path:
        """Where the node's path ``absolute`` is found from here.

        From a pod, links to absolute paths on the way there (``/var/run`` often is one) are followed
        as the node would; what they name would be looked for in the pod otherwise.
        """
        found = self.root / os.fspath(absolute).lstrip("/")
        if self.root == Path("/") or os.fspath(absolute).startswith(_NO_LINKS):
            return found
        return self._followed(found)

    def _followed(self, path: Path) -> Path:
        for _ in range(_MOST_LINKS):
            for parent in reversed(path.relative_to(self.root).parents):
                try:
                    target = (self.root / parent).readlink()
                except OSError:  # no link, or not there
                    continue
                if target.is_absolute():
                    rest = path.relative_to(self.root / parent)
                    path = self.root / target.relative_to("/") / rest
                    break
            else:
                break
        return path


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. ``status`` is negative for a signal; ``stderr_tail`` its last 16 KiB."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr_tail: str

    @property
    def text(self) -> str:
        """What it wrote to stdout, stripped."""
        return self.stdout.decode(errors="replace").strip()

    def check(self, sentence: str) -> Completed:
        """This, if it ended well.

        Raises:
            CommandFailed: it did not; ``sentence`` says what that means.
        """
        if self.status == 0:
            return self
        raise errors.CommandFailed(
            sentence, argv=self.argv, status=self.status, log_tail=self.stderr_tail
        )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What commands see of the environment: nothing of the agent's own, which may hold secrets."""
    return {"PATH": PATH, "HOME": "/root", "LC_ALL": "C", **(extra or {})}


async def run(
    host: Host,
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    keep_children: bool = False,
) -> Completed:
    """Run ``argv`` on the node and wait for it. Its whole process group is gone when this returns.

    Args:
        keep_children: what it leaves behind when it ends by itself lives on.

    Raises:
        CommandFailed: it could not be started.
        Retryable: it took longer than ``timeout_s`` (code TIMEOUT) and was killed.
    """
    process = await _start(host, argv, env, stdin=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(timeout_s):
            stdout, tail = await _converse(process, stdin)
    except TimeoutError as cause:
        message = f"{argv[0]} did not finish within {timeout_s:g} s and was stopped."
        raise errors.Retryable(message, code=errors.TIMEOUT) from cause
    finally:
        if not (keep_children and process.returncode is not None):
            await _end(process)
    return Completed(tuple(argv), process.returncode or 0, stdout, tail)


async def _start(
    host: Host, argv: Sequence[str], env: Mapping[str, str] | None, stdin: int
) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    try:
        return await asyncio.create_subprocess_exec(
            *host.prefix,
            *argv,
            stdin=stdin,
            stdout=pipe,
            stderr=pipe,
            env=environment(env),
            start_new_session=True,
        )
    except OSError as cause:
        raise errors.CommandFailed(
            f"{argv[0]} can't be started on the node: {cause.strerror}.", argv=argv, status=None
        ) from cause


async def _converse(process: asyncio.subprocess.Process, stdin: bytes) -> tuple[bytes, str]:
    if not (process.stdin and process.stdout and process.stderr):
        raise AssertionError("pipes were asked for")
    kept, out = bytearray(), bytearray()

    async def read_stderr(stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(1 << 16):
            kept.extend(piece)
            del kept[:-TAIL_BYTES]

    async def read_stdout(stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(1 << 16):
            out.extend(piece[: STDOUT_BYTES - len(out)])

    async def feed(stream: asyncio.StreamWriter) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stream.write(stdin)
            await stream.drain()
        stream.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed(process.stdin), name="stdin")
        group.create_task(read_stdout(process.stdout), name="stdout")
        group.create_task(read_stderr(process.stderr), name="stderr")
        group.create_task(process.wait(), name="wait")
    return bytes(out), kept.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the command's process group and reap it, even when cancelled again."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await finish(process.wait(), _REAP_S)


async def finish(work: Coroutine[Any, Any, object], timeout_s: float) -> None:
    """See ``work`` through within ``timeout_s``, although cancelled meanwhile; then be cancelled.

    A failure of ``work`` is raised; running out of time is not: nothing is left to be done then.
    """
    task = asyncio.create_task(work, name="finish")
    deadline = asyncio.get_running_loop().time() + timeout_s
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            task.cancel()
        try:
            await asyncio.wait({task}, timeout=max(left, 0.1))
        except asyncio.CancelledError as cause:
            cancelled = cause
    if not task.cancelled() and (failure := task.exception()):
        raise failure
    if cancelled:
        raise cancelled
