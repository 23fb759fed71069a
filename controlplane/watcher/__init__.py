"""Watchers: what they are set to, whether they run, what they decided, and what makes them run.

``deciding`` is a pure function, ``watching`` follows a cluster and acts on it. No HTTP of ours and no SQL here;
clusters are reached through ports."""
