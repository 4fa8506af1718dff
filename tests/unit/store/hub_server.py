"""A hub on this machine: the part of the Hugging Face hub's API that a download needs, over real HTTP."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE_SUFFIXES = (".safetensors", ".bin")


@dataclass
class Repository:
    """One model: what each branch or tag points at, and the files of each commit."""

    revisions: dict[str, str]
    files: dict[str, dict[str, bytes]]
    token: str | None = None
    gated: bool = False


@dataclass
class Hub:
    """What the server has, what it was asked, and how it misbehaves."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    hold: str | None = None
    """Half of this file is sent, and no more until `release`."""
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    damaged: str | None = None
    """This file arrives once with other content."""
    error: int | None = None
    """Everything is answered with this status."""
    url: str = ""

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for, in order."""
        return sorted(
            line.rsplit("/", 1)[1] for line in self.requests if line.startswith("GET /") and "/resolve/" in line
        )


class Refusal(Exception):
    """An answer other than 200, with the headers by which the hub says why."""

    def __init__(self, status: int, code: str | None = None) -> None:
        super().__init__(status, code)
        self.status = status
        self.headers = {"X-Error-Code": code} if code else {}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at a port of its own."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Quiet."""

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def _handle(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization"))
        try:
            if self.hub.error:
                raise Refusal(self.hub.error)
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            match parts:
                case ["api", "models", owner, name, "revision", revision]:
                    model_id, repository = self._repository(owner, name)
                    sha = self._commit(repository, revision)
                    self._answer(json.dumps({"id": model_id, "sha": sha, "siblings": []}).encode())
                case ["api", "models", owner, name, "tree", revision]:
                    _, repository = self._repository(owner, name)
                    files = repository.files[self._commit(repository, revision)]
                    self._answer(json.dumps([_entry(path, content) for path, content in files.items()]).encode())
                case [owner, name, "resolve", revision, *path]:
                    _, repository = self._repository(owner, name)
                    if repository.gated and not self._is_authorized(repository):
                        raise Refusal(403 if self.headers.get("Authorization") else 401, "GatedRepo")
                    self._file(repository, revision, "/".join(path))
                case _:
                    raise Refusal(404)
        except Refusal as refusal:
            self._answer(b"", refusal.headers, refusal.status)

    def _repository(self, owner: str, name: str) -> tuple[str, Repository]:
        model_id = f"{owner}/{name}"
        repository = self.hub.repositories.get(model_id)
        if repository is None:
            raise Refusal(401)  # as the hub does, which keeps private and unknown models apart from nobody
        if repository.token and not repository.gated and not self._is_authorized(repository):
            raise Refusal(401)
        return model_id, repository

    def _is_authorized(self, repository: Repository) -> bool:
        return self.headers.get("Authorization") == f"Bearer {repository.token}"

    @staticmethod
    def _commit(repository: Repository, revision: str) -> str:
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.files:
            raise Refusal(404, "RevisionNotFound")
        return commit

    def _file(self, repository: Repository, revision: str, path: str) -> None:
        commit = self._commit(repository, revision)
        content = repository.files[commit].get(path)
        if content is None:
            raise Refusal(404, "EntryNotFound")
        headers = {"ETag": f'"{_etag(path, content)}"', "X-Repo-Commit": commit}
        if self.command == "GET" and self.hub.damaged == path:
            self.hub.damaged = None
            content = bytes(byte ^ 1 for byte in content)
        self._answer(content, headers, hold=self.hub.hold == path)

    def _answer(
        self, content: bytes, headers: Mapping[str, str] | None = None, status: int = 200, *, hold: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if hold:
            half = len(content) // 2
            self.wfile.write(content[:half])
            self.wfile.flush()
            self.hub.held.set()
            self.hub.release.wait()
            content = content[half:]
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True


def _etag(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(LARGE_SUFFIXES) else _blob(content)


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's name of a file


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
    if path.endswith(LARGE_SUFFIXES):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 134}
    return entry
