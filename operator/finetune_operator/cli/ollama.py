"""`create-ollama-script`: a shell script that takes a version from its volume into Ollama."""

import json
import shlex
from typing import Any

from finetune_operator.cli.changing import version_name
from finetune_operator.cli.connection import connected
from finetune_operator.cli.failures import Failed, usage
from finetune_operator.cli.kinds import JOB, VERSION, found
from finetune_operator.cli.options import Cluster
from finetune_operator.contract.places import ADAPTER_NAME, MERGED_NAME, MODELFILE_NAME
from finetune_operator.core.modelfile import BASE_DIRECTORY, Conversation, Origin, modelfile
from finetune_operator.manifests.volume_copies import MOUNT, files_pod
from finetune_operator.resources.modelversion import ModelVersion

SCRIPT = """\
#!/bin/sh
# ModelVersion {version} of namespace {namespace} for Ollama: sh {version}.sh [NAME OF THE MODEL]
# It copies the files with a pod that mounts their volume, and removes the pod. It needs {needs}.
set -eu
name=${{1:-{version}}}
kubectl() {{ command kubectl --namespace {namespace} "$@"; }}
mkdir {version}
cd {version}

kubectl apply -f - <<'POD'
{pod}
POD
trap 'kubectl delete pod {pod_name} --wait=false' EXIT
kubectl wait pod {pod_name} --for=condition=Ready --timeout=5m
{copies}
{base}{modelfile}
ollama create "$name" -f {file}
"""

Object = dict[str, Any]


async def create_ollama_script(cluster: Cluster, name: str, architecture: str | None, image: str) -> str:
    """The script's text. Raises `Failed` where Ollama has no way to take the version."""
    async with connected(cluster) as connection:
        version = ModelVersion.parse(await connection.get(VERSION.plural, version_name(name)))
        job_name, made_by = version.spec.lineage.fine_tune_job, None
        if job_name:
            try:
                made_by = await connection.get(JOB.plural, job_name)
            except Failed:
                # The version outlives it; what it had besides the adapter is then unknown.
                made_by = None
    same = made_by is not None and made_by["metadata"]["uid"] == version.spec.lineage.job_uid
    return script_of(
        version, has_modelfile=same and _has_modelfile(made_by or {}), architecture=architecture, image=image
    )


def script_of(version: ModelVersion, *, has_modelfile: bool, architecture: str | None, image: str) -> str:
    """Pure. With the training's own Modelfile where it made one, since that knows the chat template."""
    name, namespace, spec = version.metadata.name, version.metadata.namespace, version.spec
    if not spec.artifact.uri.startswith("volume://"):
        raise Failed(f"{name} is at its provider, and its weights are not to be had: Ollama can't take it")
    claim, _, path = spec.artifact.uri.removeprefix("volume://").partition("/")
    directory, merged = path.rpartition("/")[0], spec.artifact.merged_digest is not None
    hub = spec.base_model.source.hub
    text = None
    if not has_modelfile:
        if not merged and architecture is None:
            raise usage(
                f"which architecture has {spec.base_model.name}? Ollama takes adapters of few: pass --architecture, as "
                "config.json of the base model has it (LlamaForCausalLM), or train with outputs [MergedWeights]"
            )
        origin = Origin(
            spec.base_model.name, architecture or "", hub.id if hub else None, hub.revision if hub else None
        )
        try:
            text = modelfile(origin, Conversation(None, None, ()), merged=merged)
        except ValueError as error:
            raise Failed(str(error)) from None
    wanted = {ADAPTER_NAME: path} if not merged else {MERGED_NAME: f"{directory}/{MERGED_NAME}"}
    if has_modelfile:
        wanted[MODELFILE_NAME] = f"{directory}/{MODELFILE_NAME}"
    pod_name = f"ollama-{name}"[:63].rstrip("-")
    copies = [
        f"kubectl cp {shlex.quote(f'{pod_name}:{MOUNT}/{where}')} {shlex.quote(target)}"
        for target, where in wanted.items()
    ]
    return SCRIPT.format(
        version=name,
        namespace=namespace,
        needs="kubectl and ollama" + (" and hf (huggingface_hub)" if hub and not merged else ""),
        pod=json.dumps(files_pod(pod_name, claim, image), indent=2),
        pod_name=pod_name,
        copies="\n".join(copies),
        base=_base(version, merged=merged),
        modelfile="" if text is None else f"cat > {MODELFILE_NAME} <<'MODELFILE'\n{text}MODELFILE",
        file=MODELFILE_NAME,
    )


def _base(version: ModelVersion, *, merged: bool) -> str:
    """An adapter needs its base model beside it."""
    if merged:
        return ""
    base = version.spec.base_model
    if base.source.hub:
        what = f"{shlex.quote(base.source.hub.id)} --revision {shlex.quote(base.source.hub.revision)}"
        return f"hf download {what} --local-dir {BASE_DIRECTORY}\n"
    return f'ln -s "${{BASE_MODEL:?set it to the directory of the base model, {base.name}}}" {BASE_DIRECTORY}\n'


def _has_modelfile(job: Object) -> bool:
    return any(each.get("type") == "Modelfile" for each in found(job, "status", "artifacts") or ())
