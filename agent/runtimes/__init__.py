"""The only code that touches the node: its commands, its CRI socket, runc and CRIU, its mounts.

One module per tool; frozen dataclasses come out, errors of agent/errors.py. No policy, no jobs.
Every call has a deadline, every child process is reaped. cri_wire.py alone knows protobuf.
"""
