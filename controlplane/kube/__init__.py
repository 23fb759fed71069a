"""Kubernetes API servers, with the credentials that were stored for them: what is asked of them, and how they fail.

The sync ``kubernetes`` client runs in threads and every call has a deadline. No SQL, no HTTP of ours here."""
