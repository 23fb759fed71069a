"""Hooks: what they are set to and whether they run; ``servers`` is what answers a cluster's admission reviews.

No HTTP of ours and no SQL here; clusters are reached through ports."""
