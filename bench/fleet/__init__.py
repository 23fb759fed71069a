"""The control plane beside a fleet: simulated agents, real gRPC with TLS, the real process and store.

``python -m bench.fleet`` (``./dev bench fleet``) starts the control plane, a bare gRPC echo server to compare with, a
process of agents (``agents``) and one of WebSocket readers (``readers``), which ``conducting`` leads. Not shipped.
"""
