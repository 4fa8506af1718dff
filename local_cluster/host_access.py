"""Lets package downloads inside an image build use what the host uses: CA bundle, package indexes, proxies.

A Dockerfile mounts them as optional secrets (`RUN --mount=type=secret,id=...`); nothing of them ends up in a layer:
`ca` at /etc/ssl/certs/ca-certificates.crt, `pip` at /etc/pip.conf, `uv` at /etc/uv/uv.toml.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from local_cluster.console import output_of

CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "default-timeout", "retries")
"""Those that mean the same inside a build; paths of the host (cert, find-links) don't."""


def write_secrets(directory: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Writes the files to pass as secrets; returns them by secret id."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    secrets: dict[str, Path] = {}
    if bundle := ca_bundle(environment):
        secrets["ca"] = bundle
    pip = pip_settings(environment)
    if pip:
        secrets["pip"] = directory / "pip.conf"
        secrets["pip"].write_text(pip_configuration(pip))
    if uv := uv_configuration(environment, pip):
        secrets["uv"] = directory / "uv.toml"
        secrets["uv"].write_text(uv)
    for path in directory.iterdir():
        path.chmod(0o600)
    return secrets


def ca_bundle(environment: Mapping[str, str]) -> Path | None:
    candidates = (environment.get("SSL_CERT_FILE"), environment.get("PIP_CERT"), *CA_BUNDLES)
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def proxy_arguments(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """BuildKit knows these build arguments and keeps them out of the image."""
    found = {name: environment.get(name) or environment.get(name.lower()) for name in PROXY_VARIABLES}
    return {name: value for name, value in found.items() if value}


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's effective settings: the files as pip itself reads them, then the environment, which wins."""
    settings: dict[str, str] = {}
    if shutil.which("pip3"):
        for line in output_of(["pip3", "config", "list"], environment=environment).splitlines():
            key, separator, value = line.partition("=")
            name = key.rpartition(".")[2]
            if separator and name in PIP_SETTINGS:
                settings[name] = value.strip("'\"").replace("\\n", " ")
    from_environment = {name: environment.get(f"PIP_{name.upper().replace('-', '_')}") for name in PIP_SETTINGS}
    return settings | {name: value for name, value in from_environment.items() if value}


def pip_configuration(settings: Mapping[str, str]) -> str:
    lines = [f"{name.removeprefix('default-')} = {value}" for name, value in sorted(settings.items())]
    return "\n".join(["[global]", *lines, ""])


def uv_configuration(environment: Mapping[str, str], pip: Mapping[str, str]) -> str | None:
    """uv's index settings: from its environment, else from its own file, else those of pip."""
    index = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    extra = (environment.get("UV_EXTRA_INDEX_URL") or environment.get("UV_INDEX") or "").split()
    if not index and not extra:
        for candidate in (
            environment.get("UV_CONFIG_FILE"),
            f"{environment.get('XDG_CONFIG_HOME') or Path.home() / '.config'}/uv/uv.toml",
            "/etc/uv/uv.toml",
        ):
            if candidate and Path(candidate).is_file():
                return Path(candidate).read_text()
        index, extra = pip.get("index-url"), pip.get("extra-index-url", "").split()
    if not index and not extra:
        return None
    lines = [f"index-url = {json.dumps(index)}"] if index else []
    lines += [f"extra-index-url = {json.dumps(extra)}"] if extra else []
    return "\n".join([*lines, ""])
