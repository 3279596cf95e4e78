"""What the API server gets from the kubelet of a pod's node: logs."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlencode

from tests.kube.apiserver.kinds import BY_PATH, Json
from tests.kube.apiserver.refusals import Refusal, bad_request
from tests.kube.apiserver.store import Store

NODES: Final = BY_PATH["v1", "nodes"]
SECONDS: Final = 10.0


async def logs(store: Store, pod: Json, query: dict[str, str]) -> tuple[int, bytes]:
    """Code and text. Raises Refusal."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    name = query.get("container") or names[0]
    if name not in names:
        raise bad_request(f"container {name} is not valid for pod {pod['metadata']['name']}")
    node = store.get(NODES, "", pod["spec"]["nodeName"])["status"]
    host = next(each["address"] for each in node["addresses"] if each["type"] == "InternalIP")
    port = node["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    path = f"/containerLogs/{pod['metadata']['namespace']}/{pod['metadata']['name']}/{name}?{urlencode(query)}"
    try:
        async with asyncio.timeout(SECONDS):
            return await _get(host, port, path)
    except (OSError, TimeoutError) as error:
        raise Refusal(500, "InternalError", f"Get {host}:{port}{path}: {error}") from None


async def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), text
    finally:
        writer.close()
