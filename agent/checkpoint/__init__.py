"""Taking checkpoints of running containers, and keeping them on this node.

Engines, the freeze window, the folder of parts and the archive made of it, retention. A container
that was touched runs again afterwards, however things end. No images, no restores.
"""
