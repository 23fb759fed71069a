"""Reports on what a checkpoint holds: processes, memory, files, sockets, secrets, differences.

Reads the parts of a checkpoint and nothing else; never starts a tool, never shows a secret's value. ``dump`` and
``memory`` read CRIU's images; each other module makes one kind of report of them; ``service`` picks.
"""
