"""A bare grpc.aio server with TLS that sends every message back: what so many streams cost without a control plane.

``python -m bench.fleet.echo CHAIN KEY PORT``; it has the control plane's own channel options.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from controlplane.link.listening import OPTIONS

METHOD: Final = "/bench.Echo/Hold"


class _Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of ``METHOD``, and None for every other."""
        if handler_call_details.method != METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(self._hold)

    async def _hold(
        self, said: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        async for message in said:
            await context.write(message)


async def _serve(pair: tuple[bytes, bytes], port: int) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_Echo(),))
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    chain, key = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes()
    asyncio.run(_serve((key, chain), int(sys.argv[3])))
