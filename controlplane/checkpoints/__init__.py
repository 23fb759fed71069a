"""Checkpoints as users know them: ask for one, push it, list, download, pin, share, delete.

Resolves names (cluster, node, container, registry) and turns requests into jobs. No HTTP, no SQL,
no gRPC: ``ports`` says what it needs of its neighbours."""
