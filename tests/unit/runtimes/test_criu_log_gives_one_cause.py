"""CRIU's log becomes one sentence that says what to do."""

from __future__ import annotations

import pytest

from agent.runtimes import criu

HARMLESS = (
    "(00.001035) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: EPERM\n"
)
END = "(00.001782) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("inet: Connected TCP socket, consider using --tcp-established option.", "tcp-close"),
        ("inet: In-flight connection (l) for 3", "skip-in-flight"),
        ("Some file locks are hold by dumping tasks! You can try --file-locks", "file-locks"),
        ("Can't dump ghost file /tmp/x of 2097152 size, increase limit", "ghost-limit"),
        ("fsnotify: \tHandle 0xfe:0x1 cannot be opened, Can't dump that handle", "watches"),
        ("send_fds failed (-22)", "io_uring"),
        ("Can't lookup mount=33 for fd=2 path=/x", "standard output"),
        ("Can't dump file 7 of that type [0] (unknown /dev/x)", "does not support"),
        ("External socket is used. Consider using --ext-unix-sk option.", "unix socket"),
        ("write: No space left on device", "disk is full"),
        ("Can't fork for 8: File exists", "another container of the pod"),
        ("Can't get rlimit: Operation not permitted", "CAP_SYS_RESOURCE"),
    ],
)
def test_known_causes(line: str, word: str) -> None:
    found = criu.cause(f"{HARMLESS}(00.01) Error (criu/x.c:1): {line}\n{END}")
    assert found
    assert word in found.sentence
    assert not found.retry
    assert line in "\n".join(found.lines)


def test_a_process_that_was_being_started_is_worth_a_retry() -> None:
    found = criu.cause("(03.1) Error (criu/seize.c:1): Unable to wait processes\n" + END)
    assert found
    assert found.retry


def test_an_unknown_cause_is_quoted() -> None:
    found = criu.cause(f"{HARMLESS}(00.1)      1: Error (criu/new.c:7): The moon is full.\n{END}")
    assert found
    assert found.sentence == "CRIU stopped: The moon is full."


@pytest.mark.parametrize("log", ["", HARMLESS, "(00.1) Dumping finished successfully\n"])
def test_no_error_no_cause(log: str) -> None:
    assert criu.cause(log) is None
