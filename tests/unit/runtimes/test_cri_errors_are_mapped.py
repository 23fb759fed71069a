"""Every status of gRPC becomes an error of ours, by what the reader should do."""

from __future__ import annotations

import grpc
import pytest

from agent import errors
from agent.runtimes import cri

MEANT = {
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNAVAILABLE: errors.Retryable,
    grpc.StatusCode.CANCELLED: errors.Retryable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Retryable,
    grpc.StatusCode.UNIMPLEMENTED: errors.Refused,
    grpc.StatusCode.INVALID_ARGUMENT: errors.Refused,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Refused,
    grpc.StatusCode.ALREADY_EXISTS: errors.Refused,
    grpc.StatusCode.OUT_OF_RANGE: errors.Refused,
    grpc.StatusCode.PERMISSION_DENIED: errors.Broken,
    grpc.StatusCode.UNAUTHENTICATED: errors.Broken,
}


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_each_status(code: grpc.StatusCode) -> None:
    error = cri.error_of("ContainerStatus", code, "its own words")
    assert type(error) is MEANT.get(code, errors.CommandFailed)
    assert error.details == "its own words"
    assert "its own words" not in error.message
