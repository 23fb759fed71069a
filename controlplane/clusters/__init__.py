"""Clusters as configs, how a request's cluster is found, and the tokens that admit their agents.

No HTTP, no SQL, no gRPC."""
