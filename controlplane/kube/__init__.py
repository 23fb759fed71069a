"""Kubernetes API servers, with the credentials that were stored for them: what is asked of them, and how they fail.

``client`` asks, ``informer`` keeps a copy of a list up to date, ``clients`` keeps one client per cluster open.
Everything is async and has a deadline. No SQL, no HTTP of ours, and nothing of what the answers are used for here."""
