"""What `up` becomes in the tests of the command line: takes the configuration over and answers on its socket."""

from __future__ import annotations

import asyncio
import signal
import sys

from tests.cli.test_render import SNAPSHOT
from tunrouter.config import read_handed_over
from tunrouter.daemon import signals
from tunrouter.edge.api import Call
from tunrouter.edge.api.server import serve


async def main() -> None:
    config, _ = read_handed_over(int(sys.argv[2]))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    signals.release()

    async def answer(_: Call) -> object:
        return SNAPSHOT

    server = await serve(config.socket, answer)
    sys.stdout.write(f"secrets={len(config.secrets)} modules={'typer' in sys.modules}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.close()


if __name__ == "__main__":
    asyncio.run(main())
