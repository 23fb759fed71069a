"""A timerfd that fires again and again goes on after a restore, also where its last time was not read yet.

The kernel arms such a timer anew when it is read; until then it says that nothing remains. CRIU takes that for a timer
that is off: it comes back with what it had to tell, and never fires again.

Source: CRIU, criu/timerfd.c, images/timerfd.proto; kernel, fs/timerfd.c (timerfd_show, timerfd_read).
"""

from __future__ import annotations

from pathlib import Path

from agent.formats import criu_images, criu_wire


def arm(images: Path) -> bool:
    """Have such timers of ``images`` fire again after one period; whether there were any.

    Raises:
        ValueError: the images can't be read.
        FileNotFoundError: they are not there.
    """
    files = images / "files.img"
    content = files.read_bytes()
    before = list(criu_images.entries(content))
    after = [criu_wire.with_timer_armed(message) for message in before]
    if after == before:
        return False
    partial = files.with_name("files.img.tmp")
    partial.write_bytes(criu_images.build(criu_images.magic_of(content), after))
    partial.replace(files)
    return True
