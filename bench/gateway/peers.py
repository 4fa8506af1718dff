"""Other gateways in front of the same engine, each set up as its makers advise for one core.

nginx 1.22 of Debian with kept connections and no buffering: what a proxy in C costs that reads nothing. LiteLLM's proxy
with one worker, without a database and without its own logs (docs.litellm.ai, "Best Practices for Production").
Portkey's gateway in Node.js without its pages, told in headers which engine to ask (its README, "custom host").
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from demo.environment import uv
from local_cluster.console import Refused
from local_cluster.layout import cache_root
from local_cluster.packages import Package, find_program, install

LITELLM = "litellm[proxy]==1.106.2"
PORTKEY, PORTKEY_VERSION = "@portkey-ai/gateway", "1.15.2"
PORTKEY_OVERRIDES = {"@hono/node-server": "1.13.8", "hono": "4.9.7"}
"""With newer ones, each stream is refused: github.com/Portkey-AI/gateway/issues/1389."""
NGINX_PACKAGE = Package("nginx-light", ("nginx",))
NODE_PACKAGES = (Package("nodejs", ("node",)), Package("npm", ("npm",)))
ENGINE_TIMEOUT_SECONDS = 60

NGINX_CONFIG = """
daemon off;
master_process {master};
pid {directory}/nginx.pid;
error_log {directory}/nginx.log error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    upstream engine {{ server 127.0.0.1:{engine_port}; keepalive 256; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout {timeout_seconds}s;
        }}
    }}
}}
"""
LITELLM_CONFIG = """
model_list:
  - model_name: plato
    litellm_params: {{model: openai/plato, api_base: "http://127.0.0.1:{engine_port}/v1", api_key: none}}
litellm_settings: {{request_timeout: {timeout_seconds}, set_verbose: false, json_logs: true}}
"""


@dataclass(frozen=True)
class Command:
    """A gateway that is started by it."""

    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """What each of its requests has to carry."""


def nginx(directory: Path, engine_port: int, port: int, *, reloads: bool = False) -> Command:
    """Installs it where it lacks, as root on Debian; raises `Refused` elsewhere. To reload, it needs a master."""
    install((NGINX_PACKAGE,))
    config = directory / "nginx.conf"
    config.write_text(
        NGINX_CONFIG.format(
            directory=directory,
            engine_port=engine_port,
            port=port,
            timeout_seconds=ENGINE_TIMEOUT_SECONDS,
            master="on" if reloads else "off",
        )
    )
    return Command((find_program("nginx") or "nginx", "-p", str(directory), "-c", str(config)))


def litellm(directory: Path, engine_port: int, port: int) -> Command:
    """From an environment of its own in the cache."""
    config = directory / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(engine_port=engine_port, timeout_seconds=ENGINE_TIMEOUT_SECONDS))
    program = _litellm_environment() / "bin" / "litellm"
    arguments = ("--config", config, "--host", "127.0.0.1", "--port", port, "--num_workers", 1)
    environment = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # It answers on loopback alone, and the others ask for no key either.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    return Command((str(program), *map(str, arguments)), environment)


def portkey(directory: Path, engine_port: int, port: int) -> Command:
    """From the npm registry, kept in the cache; raises `Refused` where Node.js is neither there nor to be installed."""
    install(NODE_PACKAGES)
    program = _portkey_modules() / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Command(
        (find_program("node") or "node", str(program), f"--port={port}", "--headless"),
        {"NODE_ENV": "production"},
        {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{engine_port}/v1"},
    )


def _litellm_environment() -> Path:
    def make(home: Path) -> None:
        program = str(uv())
        subprocess.run([program, "venv", "--clear", "--python", sys.executable, str(home)], check=True)
        environment = os.environ | {"VIRTUAL_ENV": str(home)}
        subprocess.run([program, "pip", "install", "--compile-bytecode", LITELLM], check=True, env=environment)

    return _kept(LITELLM.replace("[proxy]==", "-"), make)


def _portkey_modules() -> Path:
    def make(home: Path) -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        wanted = {"private": True, "dependencies": {PORTKEY: PORTKEY_VERSION}, "overrides": PORTKEY_OVERRIDES}
        (home / "package.json").write_text(json.dumps(wanted))
        command = [find_program("npm") or "npm", "install", "--ignore-scripts", "--omit=dev"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Refused(f"`npm install` of {PORTKEY} failed: {done.stderr.strip()[-500:]}")

    pinned = "-".join((PORTKEY_VERSION, *PORTKEY_OVERRIDES.values()))
    return _kept(f"portkey-gateway-{pinned}", make) / "node_modules"


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """A directory of the cache that is made once."""
    home = cache_root() / "bench" / name
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            make(home)
            (home / "complete").touch()
    return home
