"""A small client for the cluster's own API server: enough for readiness, the add-ons and the volume provisioner."""

import base64
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
FIELD_MANAGER = "local-cluster"


class ApiError(Exception):
    """The API server's answer was not a success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def answers(url: str, timeout_seconds: float = 2.0) -> bool:
    """Whether a plain health address answers with a success."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout_seconds)
    try:
        connection.request("GET", address.path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class ApiClient:
    """Talks JSON over TLS with the client certificate of one kubeconfig; a new connection for each request."""

    def __init__(self, kubeconfig: Path, timeout_seconds: float = 10.0) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._address = urlsplit(cluster["server"])
        self._timeout_seconds = timeout_seconds
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile(suffix=".pem") as pair:  # the ssl module loads a key from a file only
            pair.write(base64.b64decode(user["client-certificate-data"]))
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    def reachable(self, path: str = "/readyz") -> bool:
        """Whether the server answers this path with a success; no server, no handshake and a refusal all mean no."""
        try:
            self._text("GET", path)
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True

    def get(self, path: str) -> Json:
        return self._json("GET", path)

    def find(self, path: str) -> Json | None:
        """The object, or None if it doesn't exist."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise

    def create(self, path: str, body: Json) -> Json:
        return self._json("POST", path, body)

    def delete(self, path: str) -> None:
        self._text("DELETE", path)

    def apply(self, path: str, body: Json) -> Json:
        """Server-side apply of one object at its own path."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        return self._json("PATCH", path + query, body, {"Content-Type": "application/apply-patch+yaml"})

    def watch(self, path: str, resource_version: str, timeout_seconds: int = 300) -> Iterator[Json]:
        """Events since a version, until the server ends the watch."""
        query = f"?watch=1&resourceVersion={resource_version}&timeoutSeconds={timeout_seconds}&allowWatchBookmarks=true"
        connection = self._connect(timeout_seconds + 30.0)
        try:
            connection.request("GET", path + query, headers={"Accept": "application/json"})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise ApiError(response.status, response.read().decode(errors="replace"))
            while line := response.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def _connect(self, timeout_seconds: float) -> http.client.HTTPSConnection:
        host, port = self._address.hostname or "", self._address.port
        return http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=self._tls)

    def _json(self, method: str, path: str, body: Json | None = None, headers: Mapping[str, str] | None = None) -> Json:
        answer: Json = json.loads(self._text(method, path, body, headers))
        return answer

    def _text(self, method: str, path: str, body: Json | None = None, headers: Mapping[str, str] | None = None) -> str:
        connection = self._connect(self._timeout_seconds)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise ApiError(response.status, text)
        return text


def grant(client: ApiClient, name: str, user: str, *, role: str | None = None, rules: list[Json] | None = None) -> None:
    """Binds a user to an existing ClusterRole, or to a new one of the given name with exactly these rules."""
    group = "rbac.authorization.k8s.io"
    base = f"/apis/{group}/v1"
    meta = {"apiVersion": f"{group}/v1", "metadata": {"name": name}}
    if rules is not None:
        client.apply(f"{base}/clusterroles/{name}", {**meta, "kind": "ClusterRole", "rules": rules})
    binding = {
        **meta,
        "kind": "ClusterRoleBinding",
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role or name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    client.apply(f"{base}/clusterrolebindings/{name}", binding)
