"""asyncssh, server and client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from library_helpers import ROUNDS, abandoned, inside, library, many, rounds, run, strand_of, uses

asyncssh = library("asyncssh")
TASKS = 8  # a handshake costs much


async def shout(process: Any) -> None:
    process.stdout.write((await process.stdin.read()).upper())
    process.exit(3)


async def serve() -> Any:
    """A server without authentication, in the calling strand."""

    class Open(asyncssh.SSHServer):  # type: ignore[misc, name-defined]
        def begin_auth(self, username: str) -> bool:
            return False

    key = asyncssh.generate_private_key("ssh-ed25519")
    return await asyncssh.create_server(
        Open, "127.0.0.1", 0, server_host_keys=[key], process_factory=shout, encryption_algs=["aes128-gcm@openssh.com"]
    )


def connect(port: int) -> Any:
    return asyncssh.connect(
        "127.0.0.1", port, known_hosts=None, username="user", config=None, client_keys=None, agent_path=None
    )


async def talk(connection: Any, number: int) -> None:
    answer = await connection.run("shout", input=f"round {number}" * 2000)
    assert answer.stdout == f"ROUND {number}" * 2000
    assert answer.exit_status == 3


async def stop(server: Any) -> None:
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def serving(use: str) -> AsyncIterator[int]:
    async with strand_of(use) as there:
        server = await there(serve())
        try:
            yield server.get_port()
        finally:
            await there(stop(server))


@uses
def test_one_server_and_many_clients(use: str) -> None:
    async def main() -> None:
        async with serving(use) as port:

            async def work(number: int) -> None:
                async with connect(port) as connection:
                    await rounds(lambda n: talk(connection, number * ROUNDS + n))

            await many(use, work, TASKS)

    run(use, main)


@uses
def test_the_end_in_the_middle(use: str) -> None:
    async def main() -> None:
        server = await inside(use, serve())

        async def go(number: int) -> None:
            async with connect(server.get_port()) as connection:
                await talk(connection, number)

        await abandoned(use, go, TASKS)

    run(use, main)
