"""The job table and what it promises: an acknowledged job is never lost and takes effect at most
once. Rows, states, leases, updates; no gRPC (``link`` carries frames) and no HTTP."""

from controlplane.jobs.service import JobService
from controlplane.store.requests import Idempotency, JobFilter, NewJob, Page

__all__ = ["Idempotency", "JobFilter", "JobService", "NewJob", "Page"]
