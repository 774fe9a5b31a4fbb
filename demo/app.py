"""The server of the demo: ordinary asyncio code, with the mistake everyone makes."""

import asyncio
import time

import plait


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = await reader.readline()
    if line == b"block\n":
        time.sleep(1)
    writer.write(line)
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await plait.start_server(handle, "127.0.0.1", 8888)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    plait.run(main())
