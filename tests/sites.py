"""A web server on this machine for tests: what it says under each path is up to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site(ThreadingHTTPServer):
    """Serves `pages`, bytes by path, of the kind that `kinds` tells; one in `stalled` once `go` is set.

    logins: that it was given, but for none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, bytes] = {}
        self.kinds: dict[str, str] = {}
        self.stalled: set[str] = set()
        self.go = threading.Event()
        self.logins: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: here clients hang up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        if login := self.headers.get("Authorization"):
            self.server.logins.append(login)
        if self.path in self.server.stalled:
            self.server.go.wait(60)
        body = self.server.pages.get(self.path)
        self.send_response(404 if body is None else 200)
        if kind := self.server.kinds.get(self.path):
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def site() -> Iterator[Site]:
    """Yield a running server."""
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            server.shutdown()
            thread.join()
