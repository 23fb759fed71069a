"""How fast the REST API answers from a store of 100,000 checkpoints, beside a minimal FastAPI app. Not shipped.

``python -m bench.api`` fills a store, starts both as one process each, asks both the same questions on loopback.
FastAPI and uvicorn are installed for it in a folder of their own, never in the project's environment.
"""
