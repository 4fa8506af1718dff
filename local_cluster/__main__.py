"""`python3 -m local_cluster VERB`: arguments only; each verb's work is in the module of its topic."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import local_cluster
from local_cluster import packages, toolchain
from local_cluster.cluster import DEFAULT_NAME, Cluster
from local_cluster.console import Refused, fail, note


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m local_cluster", description=local_cluster.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="compile every program")
    build.add_argument("--control-plane-only", action="store_true", help="those of an API server without a node")
    verbs.add_parser("packages", help="install the system packages that the node needs")

    def cluster_verb(name: str, explanation: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=explanation)
        verb.add_argument("--name", default=DEFAULT_NAME, help="which cluster (default: %(default)s)")
        return verb

    up = cluster_verb("up", "bring the cluster up")
    up.add_argument("--control-plane-only", action="store_true", help="an API server without a node, for tests")
    up.add_argument("--port", type=int, help="the API server's port; the others follow it")
    down = cluster_verb("down", "stop it and undo the changes to the host; data is kept")
    down.add_argument("--purge", action="store_true", help="remove its data and the packages installed for it, too")
    down.add_argument("--purge-cache", action="store_true", help="remove the compiled programs and images, too")
    cluster_verb("base-image", "make and import the Debian base image")
    image = cluster_verb("image", "build an image into the node's image store")
    image.add_argument("--tag", required=True)
    image.add_argument("--file", required=True, type=Path, help="the Dockerfile")
    image.add_argument("--context", required=True, type=Path)
    image.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    cluster_verb("status", "its processes")
    cluster_verb("kubeconfig", "print the path of its kubeconfig")
    cluster_verb("audit-log", "print the path of its audit log")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        return run(options)
    except Refused as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted; run the same command again to go on")


def run(options: argparse.Namespace) -> int:
    match options.verb:
        case "build":
            tools = toolchain.CONTROL_PLANE_TOOLS if options.control_plane_only else toolchain.TOOLS
            print(toolchain.build(tools))
        case "packages":
            packages.install()
        case "up":
            cluster = Cluster(options.name, control_plane_only=options.control_plane_only, port=options.port)
            cluster.up()
            note(f"KUBECONFIG={cluster.kubeconfig}")
            note(f"PATH={cluster.bin_dir}:$PATH")
        case "down":
            Cluster.known(options.name).down(purge=options.purge)
            if options.purge:
                packages.remove_installed()
            if options.purge_cache:
                toolchain.remove_cache()
        case "base-image":
            Cluster.known(options.name).ensure_base_image()
        case "image":
            arguments = dict(argument.split("=", 1) for argument in options.build_arg)
            Cluster.known(options.name).build_image(options.tag, options.file, options.context, arguments)
        case "status":
            for name, state in Cluster.known(options.name).status().items():
                print(f"{name:26}{state}")
        case "kubeconfig":
            print(Cluster.known(options.name).kubeconfig)
        case "audit-log":
            print(Cluster.known(options.name).audit_log)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
