"""Servers that repeat what they were told, secrets included, as proxies and debug pages do."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILLING = "x" * 280
"""With that before it, a secret is cut in two by whoever shortens a message first and blanks it then."""


class _Handler(BaseHTTPRequestHandler):
    """`/<how>/...`: an error, a page in place of JSON, or a redirect for ever."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        heard = f"{self.headers}{self.rfile.read(length).decode(errors='replace')}"
        how = self.path.split("/")[1]
        told = self.server.tell(heard)  # type: ignore[attr-defined]
        body = json.dumps({"error": {"message": f"{FILLING} {told}"}, "message": told}).encode()
        if how == "page":
            body = f"<html>{told}</html>".encode()
        self.send_response({"page": 200, "loop": 307}.get(how, 503))
        self.send_header("Content-Type", "text/html" if how == "page" else "application/json")
        if how == "loop":
            self.send_header("Location", self.path)
        self.send_header("X-Error-Message", told.replace("\r", " ").replace("\n", " ")[:2000])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' own output."""


@contextmanager
def careless_http(secret: str = "") -> Iterator[str]:
    """Its URL; with a `secret`, it repeats that one, which it knows from elsewhere, and else the request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.tell = lambda heard: secret or heard  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def careless_postgres() -> Iterator[int]:
    """The port of a PostgreSQL that asks for the password in clear, and repeats it in its refusal."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_refuse_all, args=(listener,), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _refuse_all(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            _refuse(connection)


def _refuse(connection: socket.socket) -> None:
    """https://www.postgresql.org/docs/current/protocol-message-formats.html"""
    connection.settimeout(5)
    while True:
        length = int.from_bytes(connection.recv(4), "big")
        startup = connection.recv(length - 4)
        if int.from_bytes(startup[:4], "big") == 196608:
            break
        connection.sendall(b"N")  # neither TLS nor GSSAPI
    connection.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
    connection.recv(1)
    length = int.from_bytes(connection.recv(4), "big")
    password = connection.recv(length - 4).rstrip(b"\x00")
    fields = b"SFATAL\x00VFATAL\x00C28P01\x00Mpassword authentication failed, it was " + password + b"\x00\x00"
    connection.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
