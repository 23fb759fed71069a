"""A checkpoint as an OCI image: layers in one pass, manifest, registry client, push, fetch, cache.

Bytes go from the page cache through compression and hashing to the registry, and back through the
same checks; nothing is written on the way out, and on the way in nothing counts before its digest
is right.
Knows folders of parts (formats/), not containers, runtimes or jobs.
"""
