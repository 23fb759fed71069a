"""Clusters as configs, how a request's cluster is found, and the tokens that admit their agents.

``following`` keeps what is known of a cluster by its API server: figures, nodes' labels and condition, Events.
No HTTP, no SQL, no gRPC."""
