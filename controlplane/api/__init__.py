"""The REST API and its WebSocket: one module per section of the reference, one small function per endpoint.

To add an endpoint: a struct of what it takes, a struct of what it gives, a function under its section's
decorator (``routing.Section``); add the role it needs to the table of tests/contract. ``edge`` does the rest.
Only ``problems`` knows statuses. No SQL, no Kubernetes, no gRPC here: ``services`` names the ports.
"""

from controlplane.api.assembly import application

__all__ = ["application"]
