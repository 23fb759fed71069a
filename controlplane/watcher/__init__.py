"""Watchers: what they are set to, whether they run, what they decided; ``loops`` is what runs one.

No HTTP of ours and no SQL here; clusters are reached through ports."""
