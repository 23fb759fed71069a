"""A SIGCONT that waits for the first process is left out: CRIU could not restore it.

A program that blocks SIGCONT (``su`` does) has it pending for ever once it was restored, because restored processes
are stopped and let go by that signal. At the next restore CRIU sends what was pending again, while it holds the
first process by PTRACE_SEIZE; a seized process stops for any SIGCONT, and CRIU takes that for its end ("stopped by
signal 5"). Whoever waits for the signal would only learn that it was let go, which it was.

Source: CRIU, criu/cr-restore.c (restore_root_task, sigchld_process), criu/pie/restorer.c (restore_signals); kernel,
kernel/signal.c (prepare_signal, ptrace_trap_notify); ptrace(2), PTRACE_SEIZE.
"""

from __future__ import annotations

import signal
from pathlib import Path

from agent.formats import criu_images, criu_wire


def forget_continue(images: Path) -> bool:
    """Leave the signal out of ``images``; whether it was there.

    Raises:
        ValueError: the images can't be read. FileNotFoundError: they are not there.
    """
    first = criu_wire.process_node_of(criu_images.first((images / "pstree.img").read_bytes()))
    changed = [_in_thread(images / f"core-{thread}.img") for thread in first.threads]
    return any(changed)


def _in_thread(image: Path) -> bool:
    content = image.read_bytes()
    message, *others = criu_images.entries(content)
    without = criu_wire.without_signal(message, signal.SIGCONT)
    if without == message:
        return False
    partial = image.with_name(f"{image.name}.tmp")
    partial.write_bytes(criu_images.build(criu_images.magic_of(content), (without, *others)))
    partial.replace(image)
    return True
