"""Hooks: what they are set to, whether they run, and what makes them run.

``admission`` decides about a new pod from memory alone, ``listener`` is the port that clusters call, ``running``
keeps hooks registered there. No REST of ours and no SQL here; clusters are reached through ports."""
