"""CRIU's mark that a dump closed TCP connections, taken off where there was none to close.

CRIU refuses to restore a dump made with ``tcp-close`` without the same option, which containerd's and
CRI-O's own restores do not give. Without a connection in the dump the option means nothing.

Source: CRIU, criu/image.c (check_img_inventory), criu/sk-tcp.c.
"""

from __future__ import annotations

from pathlib import Path

from agent.formats import criu_images, criu_wire


def relax(images: Path) -> bool:
    """Take the mark off ``images`` unless a TCP connection was dumped; whether it is off now.

    Raises:
        ValueError: the images can't be read.
        FileNotFoundError: they are not there.
    """
    inventory = images / "inventory.img"
    content = inventory.read_bytes()
    message, *others = criu_images.entries(content)
    if not criu_wire.inventory_of(message).tcp_close:
        return True
    files = (images / "files.img").read_bytes()
    if any(criu_wire.is_tcp_connection(entry) for entry in criu_images.entries(files)):
        return False
    entries = (criu_wire.without_tcp_close(message), *others)
    partial = inventory.with_name("inventory.img.tmp")
    partial.write_bytes(criu_images.build(criu_images.magic_of(content), entries))
    partial.replace(inventory)
    return True
