"""Archives that users uploaded: received to this server's disk, checked, read again.

Files only: who may upload, and what an archive becomes, is decided in ``checkpoints``. Nothing of an
archive is ever unpacked here, and nothing in it is trusted.
"""
