"""What checkpoint, image, restore, insights, jobs and link share: shapes and file formats.

Frozen dataclasses, digests, the archive's layout, CRIU's images and the chain of memory windows.
Pure: reads and writes files it is given, runs nothing, talks to nobody, knows no policy.
"""
