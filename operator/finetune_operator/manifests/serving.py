"""The vLLM engine of all versions that agree in base model and serving parameters, or of one's merged weights.

The pod template depends on those alone, never on the list of adapters: a new version must not restart anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from finetune_operator.contract.adapters import Adapter, AdapterList
from finetune_operator.contract.artifacts import MergedWeights
from finetune_operator.contract.places import (
    ADAPTERS_FILE,
    ARTIFACTS_ROOT,
    ENGINE_API_KEY_VARIABLE,
    ENGINE_CONTAINER,
    ENGINE_PORT,
    MERGED_FILE,
    merged_beside,
)
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.merged_weights import ENGINE_PREFIX, is_merged_engine
from finetune_operator.manifests.base_models import (
    base_model_mounts,
    base_model_volumes,
    fetch_container,
    frozen_model_path,
)
from finetune_operator.manifests.common import (
    ENGINE_LABEL,
    REVISION_ANNOTATION,
    SCRATCH_MOUNTS,
    Manifest,
    claim_volume,
    config_mount,
    container_security,
    digest_of,
    environment,
    labels,
    owner_reference,
    pod_security,
    resources,
    scheduling,
    scratch_volumes,
    secret_variable,
)
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionSpec
from finetune_operator.resources.serving import ServingSpec

COMPONENT_NAME = "engine"
ENGINE_API_KEY_KEY = "engine-api-key"
DRAIN_SECONDS = 300
"""As a model that reasons may take for an answer. A pod that has nothing left to answer goes at once."""
REROUTE_SECONDS = 5
STARTUP_PERIOD_SECONDS = 2
START_SECONDS = 1800
MERGED_START_SECONDS = 7200
TERMINATION_GRACE_SECONDS = REROUTE_SECONDS + DRAIN_SECONDS + 15
UNCOMPARED_FIELDS = ("replicas", "progressDeadlineSeconds", "mergedWeights")
"""Of `spec.serving`: what can change while an engine runs, and what its name's beginning tells."""
ADAPTER_FIELDS = ("maxLoras", "maxLoraRank")
"""Of `spec.serving`: what has no effect on merged weights."""


def engine_name(spec: ModelVersionSpec, serving: ServingSpec) -> str:
    """One engine per base model, artifact volume and those serving parameters that a running engine can't change.

    Merged weights have an engine of their own.
    """
    compared = {name: value for name, value in serving.to_dict().items() if name not in UNCOMPARED_FIELDS}
    if serving.merged_weights:
        return _merged_engine_name(spec, compared)
    parameters = {
        "baseModel": spec.base_model.to_dict(),
        "claim": artifact_claim(spec.artifact.uri),
        # A constant, with which engines were named before there was anything else that is not compared.
        "serving": compared | {"replicas": 1},
    }
    return f"vllm-{digest_of(parameters, length=10)}"


def _merged_engine_name(spec: ModelVersionSpec, compared: Mapping[str, object]) -> str:
    artifact = spec.artifact
    parameters = {
        "version": [spec.model, spec.version],
        "baseModel": spec.base_model.name,
        "artifact": [artifact.uri, artifact.digest, artifact.merged_digest],
        "serving": {name: value for name, value in compared.items() if name not in ADAPTER_FIELDS},
    }
    return f"{ENGINE_PREFIX}{digest_of(parameters, length=10)}"


def wanted_engine(version: ModelVersion) -> str | None:
    """The engine that the version's spec asks for, if it asks for any."""
    serving = version.spec.serving
    return engine_name(version.spec, serving) if serving else None


def asked_engine(version: ModelVersion) -> str | None:
    """Where it answers now: after a change of spec.serving, that is not yet the engine that it asks for."""
    return version.status.engine or wanted_engine(version)


def engine_url(engine: str, namespace: str) -> str:
    """Where an engine answers within the cluster."""
    return f"http://{engine}.{namespace}.svc:{ENGINE_PORT}"


def artifact_claim(uri: str) -> str:
    """The PersistentVolumeClaim in `volume://<claim>/<path>`."""
    return uri.removeprefix("volume://").split("/", 1)[0]


def adapter_of(version: ModelVersion) -> Adapter:
    """The version as its engine knows it; the path is computed here and never taken from a request."""
    artifact = version.spec.artifact
    if artifact.digest is None:
        raise ValueError(f"{artifact.uri} is no adapter; the API server admits no serving of it")
    path = artifact.uri.removeprefix("volume://").split("/", 1)[1]
    return Adapter(name=version.metadata.name, path=f"{ARTIFACTS_ROOT}/{path}", digest=artifact.digest)


def merged_weights_of(version: ModelVersion) -> MergedWeights:
    """The version's merged weights as their engine is told of them; they lie beside the adapter."""
    adapter, digest = adapter_of(version), version.spec.artifact.merged_digest
    if digest is None:
        raise ValueError(f"{version.metadata.name} has no merged weights; the API server admits no serving of them")
    return MergedWeights(
        name=adapter.name,
        path=str(merged_beside(PurePosixPath(adapter.path))),
        digest=digest,
        base_model_name=version.spec.base_model.name,
        adapter_digest=adapter.digest,
    )


def directory_in(version: ModelVersion, engine: str) -> str:
    """Which of the version's directories this engine serves it from."""
    return merged_weights_of(version).path if is_merged_engine(engine) else adapter_of(version).path


def engine_selector(engine: str) -> str:
    """Label selector of the engine's pods."""
    return f"{ENGINE_LABEL}={engine}"


def engine_manifests(
    engine: str, served: Sequence[ModelVersion], owners: Iterable[ModelVersion], config: OperatorConfig
) -> tuple[Manifest, ...]:
    """ConfigMap, Service and Deployment, the last one carrying a revision of all three.

    Some of the `served` may only stay until another engine answers for them; the parameters are those of a version that
    asks for this one.
    """
    owners = tuple(owners)
    owner_references = [owner_reference(owner, controller=False) for owner in owners]
    asking = next((version for version in owners if wanted_engine(version) == engine), None)
    if asking is None or asking.spec.serving is None:
        raise ValueError("an engine is made for versions that ask for it")
    spec, serving = asking.spec, asking.spec.serving
    wishes = [version.spec.serving for version in served if version.spec.serving]
    metadata = {
        "name": engine,
        "namespace": served[0].metadata.namespace,
        "labels": labels(COMPONENT_NAME, {ENGINE_LABEL: engine}),
        "ownerReferences": owner_references,
    }
    told: AdapterList | MergedWeights = AdapterList(
        base_model_name=spec.base_model.name,
        max_lora_rank=serving.max_lora_rank,
        adapters=tuple(adapter_of(version) for version in served),
    )
    if serving.merged_weights:
        told = merged_weights_of(asking)
    config_map: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {_told_file(serving).rsplit("/", 1)[1]: told.model_dump_json(by_alias=True)},
    }
    service: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "selector": {ENGINE_LABEL: engine},
            "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": ENGINE_PORT}],
        },
    }
    deployment: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": max(wish.replicas for wish in wishes),
            "selector": {"matchLabels": {ENGINE_LABEL: engine}},
            "progressDeadlineSeconds": max(wish.progress_deadline_seconds for wish in wishes),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels(COMPONENT_NAME, {ENGINE_LABEL: engine})},
                "spec": _pod(engine, asking, serving, config),
            },
        },
    }
    revision = digest_of([config_map, service, deployment], length=16)
    deployment["metadata"] = metadata | {"annotations": {REVISION_ANNOTATION: revision}}
    return config_map, service, deployment


def _told_file(serving: ServingSpec) -> str:
    return MERGED_FILE if serving.merged_weights else ADAPTERS_FILE


def _pod(engine: str, version: ModelVersion, serving: ServingSpec, config: OperatorConfig) -> Manifest:
    # Merged weights are a whole model.
    source = None if serving.merged_weights else version.spec.base_model.source
    return {
        "serviceAccountName": config.workload_service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        # The kernel keeps a signal from process 1 until that has a handler, and vLLM has one when it has started: a pod
        # that goes before would hold its GPU until the kubelet loses patience.
        "shareProcessNamespace": True,
        "securityContext": pod_security(),
        **({"initContainers": [fetch_container(source.hub, config)]} if source and source.hub else {}),
        "containers": [
            {
                "name": ENGINE_CONTAINER,
                "image": config.server_image,
                "imagePullPolicy": config.image_pull_policy,
                "args": [
                    "--merged" if serving.merged_weights else "--adapters",
                    _told_file(serving),
                    "--",
                    *_engine_arguments(version, serving, config),
                ],
                "env": [
                    secret_variable(ENGINE_API_KEY_VARIABLE, config.secret_name, ENGINE_API_KEY_KEY),
                    *environment(
                        {
                            "HOME": "/tmp",  # noqa: S108 - an emptyDir
                            **({} if serving.merged_weights else {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true"}),
                            "VLLM_NO_USAGE_STATS": "1",
                            "HF_HUB_OFFLINE": "1",
                            **config.engine_env,
                        }
                    ),
                ],
                "ports": [{"name": "http", "containerPort": ENGINE_PORT}],
                "startupProbe": _startup_probe(serving),
                "readinessProbe": _probe(period_seconds=2, failure_threshold=2),
                "livenessProbe": _probe(period_seconds=10, failure_threshold=6),
                # Meanwhile gateways and kube-proxy hear that the pod goes; vLLM then drains what it has begun.
                "lifecycle": {"preStop": {"sleep": {"seconds": REROUTE_SECONDS}}},
                "volumeMounts": [
                    config_mount(_told_file(serving)),
                    *(base_model_mounts(source) if source else []),
                    {"name": "artifacts", "mountPath": ARTIFACTS_ROOT, "readOnly": True},
                    *SCRATCH_MOUNTS,
                ],
                "resources": resources(serving.resources),
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": engine}},
            *(base_model_volumes(source, config) if source else []),
            claim_volume("artifacts", artifact_claim(version.spec.artifact.uri), read_only=True),
            *scratch_volumes(),
        ],
        **scheduling(serving.scheduling),
    }


def _engine_arguments(version: ModelVersion, serving: ServingSpec, config: OperatorConfig) -> list[str]:
    return [
        # The server itself says which merged weights: those that it has verified.
        *([] if serving.merged_weights else _base_model_arguments(version)),
        *("--host", "0.0.0.0"),  # noqa: S104 - the pod's own network
        *("--port", str(ENGINE_PORT)),
        *([] if serving.merged_weights else _adapter_arguments(serving)),
        *("--max-model-len", str(serving.max_model_len)),
        *("--gpu-memory-utilization", serving.gpu_memory_utilization),
        *("--tensor-parallel-size", str(serving.tensor_parallel_size)),
        *("--shutdown-timeout", str(DRAIN_SECONDS)),
        *config.engine_args,
    ]


def _base_model_arguments(version: ModelVersion) -> list[str]:
    base_model = version.spec.base_model
    return ["--model", frozen_model_path(base_model.source), "--served-model-name", base_model.name]


def _adapter_arguments(serving: ServingSpec) -> list[str]:
    return [
        "--enable-lora",
        *("--max-loras", str(serving.max_loras)),
        *("--max-lora-rank", str(serving.max_lora_rank)),
    ]


def _startup_probe(serving: ServingSpec) -> Manifest:
    """With time to read merged weights twice, to hash and to load them; the Deployment's deadline is the user's."""
    seconds = MERGED_START_SECONDS if serving.merged_weights else START_SECONDS
    return _probe(period_seconds=STARTUP_PERIOD_SECONDS, failure_threshold=seconds // STARTUP_PERIOD_SECONDS)


def _probe(*, period_seconds: int, failure_threshold: int) -> Manifest:
    return {
        "httpGet": {"path": "/health", "port": ENGINE_PORT},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failure_threshold,
    }
