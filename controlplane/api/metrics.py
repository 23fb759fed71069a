"""Figures for Prometheus: requests here, and what other parts register."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0)


class Metrics:
    """One registry of figures for the whole control plane.

    Attributes:
        registry: other parts put their own collectors here.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._seconds = Histogram(
            "snap_http_request_seconds",
            "Time from request to answer",
            ["method", "path"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            "snap_http_requests",
            "Requests answered",
            ["method", "path", "status"],
            registry=self.registry,
        )
        self._errors = Counter(
            "snap_http_errors", "Requests answered with an error", ["code"], registry=self.registry
        )

    def answered(self, method: str, path: str, status: int, duration_s: float) -> None:
        """A request to the route ``path`` was answered."""
        self._seconds.labels(method, path).observe(duration_s)
        self._requests.labels(method, path, str(status)).inc()

    def failed(self, code: str) -> None:
        """A request was answered with the error ``code``."""
        self._errors.labels(code).inc()

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)
