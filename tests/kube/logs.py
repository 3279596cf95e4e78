"""The kubelet's port, as far as `kubectl logs` needs it: GET /containerLogs/NAMESPACE/POD/CONTAINER."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from tests.kube.kubelet import Kubelet

PORT: Final = 10250


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without asking the domain name system who we are."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]


class Logs:
    """Serves until it is closed."""

    def __init__(self, kubelet: Kubelet) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, text = _answer(kubelet, self.path)
                self.send_response(code)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the library)
                """Of requests nobody wants to read."""

        self._server = kubelet.machine.within(lambda: Server((kubelet.machine.host.address, PORT), Handler))
        threading.Thread(target=self._server.serve_forever, daemon=True, name=f"logs of {kubelet.machine}").start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(kubelet: Kubelet, target: str) -> tuple[int, bytes]:
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query))
    try:
        _, namespace, pod, name = parts.path.strip("/").split("/")
        worker = kubelet.worker(pod)
        container = worker.containers[name]
    except (ValueError, StopIteration, KeyError):
        return 404, b"not found\n"
    attempt = container.attempt - (query.get("previous") == "true")
    path = f"/var/log/pods/{namespace}_{pod}_{worker.uid}/{name}/{attempt}.log"
    try:
        lines = kubelet.machine.inside(path).read_text(errors="replace").splitlines()
    except OSError:
        return 404, f"{name} has no log yet\n".encode()
    # Each line: time, stream, whether it is whole, text.
    said = [line.split(" ", 3)[3] for line in lines if line.count(" ") >= 3]
    if "tailLines" in query:
        said = said[-int(query["tailLines"]) :] if int(query["tailLines"]) else []
    return 200, "".join(f"{line}\n" for line in said).encode()
