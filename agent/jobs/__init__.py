"""What the agent has promised to do: the journal, the queue, progress, cancel.

A job is on disk before it is acknowledged, each step is on disk before it is taken, a result is
kept until the control plane has it. What the steps do is behind the ports of ``steps.py``; nothing
here knows a container, a registry or the wire.
"""
