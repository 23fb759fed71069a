"""Reports on what a checkpoint holds (processes, memory, files, sockets), read from CRIU's images.

Reads the parts of a checkpoint and nothing else; never starts a tool, never shows a secret's value.
"""
