"""The node agent: everything that touches a container or its bytes.

Holds no user, no policy and no cluster credential but its own service account.
"""

__version__ = "0.1.0"
