"""grpc.aio, server and client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from library_helpers import ROUNDS, library, many, rounds, run, strand_of, uses

grpc = library("grpc", "grpcio")
aio = library("grpc.aio", "grpcio")


class Service(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
    """Two methods on plain bytes, so no generated code is needed."""

    def service(self, details: Any) -> Any:
        if details.method == "/test/shout":
            return grpc.unary_unary_rpc_method_handler(shout)
        return grpc.unary_stream_rpc_method_handler(count)


async def shout(request: bytes, _context: Any) -> bytes:
    return request.upper()


async def count(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    for n in range(int(request)):
        yield b"%d" % n


async def serve() -> tuple[Any, str]:
    server = aio.server()
    server.add_generic_rpc_handlers((Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def serving(use: str) -> AsyncIterator[str]:
    async with strand_of(use) as there:
        server, address = await there(serve())
        try:
            yield address
        finally:
            await there(server.stop(0.1))


async def talk(channel: Any, number: int) -> None:
    assert await channel.unary_unary("/test/shout")(b"round %d" % number) == b"ROUND %d" % number
    assert [n async for n in channel.unary_stream("/test/count")(b"5")] == [b"0", b"1", b"2", b"3", b"4"]


@uses
def test_one_server_and_many_clients(use: str) -> None:
    async def main() -> None:
        async with serving(use) as address:

            async def work(number: int) -> None:
                async with aio.insecure_channel(address) as channel:
                    await rounds(lambda n: talk(channel, number * ROUNDS + n))

            await many(use, work)

    run(use, main)
