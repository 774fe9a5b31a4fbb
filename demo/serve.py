"""The server process: `serve.py asyncio` or `serve.py plait` serves app.handle on a free port, which it prints.

Both get the same handler, listen queue and number of descriptors. plait's stall reports are logged to standard error.
"""

import asyncio
import logging
import sys
from typing import Any

import app
import child

import plait


async def main(runtime: str) -> None:
    start_server: Any = plait.start_server if runtime == "plait" else asyncio.start_server
    server = await start_server(app.handle, "127.0.0.1", 0, backlog=child.BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    child.live_with_parent()
    child.raise_descriptor_limit()
    logging.basicConfig(format="%(name)s: %(message)s")
    try:
        if sys.argv[1] == "plait":
            plait.run(main("plait"))
        else:
            asyncio.run(main("asyncio"))
    except KeyboardInterrupt:
        pass
