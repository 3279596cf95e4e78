"""The API server as a program: prints its URL, and serves until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.kube.apiserver.certificates import make
from tests.kube.apiserver.control import serve
from tests.kube.apiserver.rights import ADMIN
from tests.kube.apiserver.server import ApiServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kube.apiserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument(
        "--tls", type=Path, metavar="DIRECTORY", help="makes certificates there, its ca.crt for clients"
    )
    parser.add_argument("--name", action="append", default=[], help="a further address in its certificate")
    parser.add_argument(
        "--mount", type=Path, metavar="DIRECTORY", help="puts a service account's token and ca.crt there"
    )
    parser.add_argument("--user", default=ADMIN, help="whose token that is (system:serviceaccount:NAMESPACE:NAME)")
    parser.add_argument(
        "--manifest", type=Path, action="append", default=[], help="objects that are there from the start"
    )
    parser.add_argument("--rbac", action="store_true", help="wants tokens, and refuses what no role allows")
    parser.add_argument("--bookmarks", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--control", type=Path, metavar="SOCKET", help="takes commands there (see control.py)")
    asyncio.run(_run(parser.parse_args()))


async def _run(options: argparse.Namespace) -> None:
    server = ApiServer(bookmark_seconds=options.bookmarks)
    certificates = make(options.tls, options.host, *options.name) if options.tls else None
    for manifest in options.manifest:
        server.load(manifest)
    if options.rbac:
        server.rights.tokens_wanted = server.rights.enforced = True
    if options.mount:
        options.mount.mkdir(parents=True, exist_ok=True)
        (options.mount / "token").write_text(server.rights.token(options.user))
        if certificates:
            (options.mount / "ca.crt").write_text(certificates.authority.read_text())
    await server.start(options.host, options.port, certificates[1:] if certificates else None)
    control = await serve(server, options.control) if options.control else None
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    if control:
        control.close()
    await server.down()


if __name__ == "__main__":
    main()
