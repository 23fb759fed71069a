"""Starting containers from checkpoints: the OCI runtime wrapper and the side that answers it.

``snap-runc.sh`` stands in front of the node's OCI runtime and asks; ``service`` answers: restore, or start cold
and why. Here are the checks (grants, compatibility, privileges), the preparation of the new container's files
with its undoing, memory that comes later (``laziness`` says when, ``snap-lazy.sh`` guards it), the ledger of what
was restored, and the proof. Fetching is another room's (``ports.Fetcher``).
"""
