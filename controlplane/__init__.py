"""The control plane: users, clusters, registries, jobs, and who is connected.

Thin: it never runs a container tool and never sees a checkpoint's bytes but when a user moves an archive.
"""

__version__ = "0.1.0"
