"""`finetune-operator registry export`: all ModelVersions, with their lineage and history, as a file.

finetune-operator registry export --pin-active > registry.yaml
kubectl apply -f registry.yaml
"""

import argparse
import asyncio
import json
import sys

from finetune_operator.core.registry import Object, registry
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import KubeError
from finetune_operator.kube.yaml_text import yaml_text


def main(options: argparse.Namespace) -> int:
    """Prints them, or on standard error what is wrong."""
    try:
        found = registry(asyncio.run(_versions(options.namespace)), pin_active=options.pin_active)
    except KubeError as error:
        sys.stderr.write(f"finetune-operator: {error}\n")
        return 1
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.output == "json" else yaml_text(found))
    return 0


async def _versions(namespace: str | None) -> list[Object]:
    async with KubeClient.from_environment() as client:
        bodies, _ = await client.list("modelversions", namespace)
    return bodies
