"""The Helm chart: what it renders for which values."""

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.__main__ import main as finetune_operator
from finetune_operator.contract.places import ENGINE_PORT
from finetune_operator.core.cost import PriceBook, price_book
from finetune_operator.gateway.limits import Limits
from finetune_operator.gateway.settings import GatewaySettings
from finetune_operator.manifests import batch_inference, evaluation, serving, training
from finetune_operator.manifests.common import labels
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.shell.settings import Settings as OperatorSettings
from finetune_operator.web.settings import Settings as ApiSettings
from helm.values_table import main as values_table
from tests.helm.conftest import CHART, NAMESPACE, PROFILES, REPOSITORY, Helm, Manifest, named, of_kind
from tests.helm.pod_security import pod_violations

WATCHED = ("team-a", "team-b")
TWO_NAMESPACES = ("--set", f"watchNamespaces={{{','.join(WATCHED)}}}")
SECRET_KEYS = {"internal-token", "engine-api-key", "api-token"}

COMMON_VARIABLES = {"FINETUNE_NAMESPACES", "FINETUNE_LOG_LEVEL", "FINETUNE_INTERNAL_TOKEN"}
SHADOWS = "FINETUNE_SHADOWS_AT_ONCE"
LIMITS = {"FINETUNE_REQUESTS_PER_MINUTE", "FINETUNE_TOKENS_PER_MINUTE", "FINETUNE_REQUESTS_AT_ONCE"}
VARIABLES = {
    "operator": COMMON_VARIABLES
    | {
        "FINETUNE_API_URL",
        "VLLM_API_KEY",
        "FINETUNE_OPERATOR_IMAGE",
        "FINETUNE_TRAINER_IMAGE",
        "FINETUNE_AXOLOTL_IMAGE",
        "FINETUNE_SERVER_IMAGE",
        "FINETUNE_IMAGE_PULL_POLICY",
        "FINETUNE_ARTIFACTS_CLAIM",
        "FINETUNE_BASE_MODELS_CLAIM",
        "FINETUNE_HUB_ENDPOINT",
        "FINETUNE_FETCH_ENV",
        "FINETUNE_SECRET_NAME",
        "FINETUNE_WORKLOAD_SERVICE_ACCOUNT",
        "FINETUNE_REMOTE_SERVICE_ACCOUNT",
        "FINETUNE_ENGINE_ARGS",
        "FINETUNE_ENGINE_ENV",
        "FINETUNE_TRAINER_ENV",
        "FINETUNE_PRICES",
        "FINETUNE_POLL_SECONDS",
        "FINETUNE_STEADY_SECONDS",
    },
    "gateway": COMMON_VARIABLES
    | {"VLLM_API_KEY", "FINETUNE_API_URL", "FINETUNE_DRAIN_DELAY_SECONDS"}
    | LIMITS
    | {SHADOWS},
    "api": COMMON_VARIABLES
    | {
        "FINETUNE_DATABASE_URL",
        "FINETUNE_GATEWAY_URL",
        "FINETUNE_API_TOKEN",
        "FINETUNE_RATINGS_URL_FILE",
        "FINETUNE_DATASETS_DIRECTORY",
        "FINETUNE_DATASETS_MAX_COUNT",
        "FINETUNE_DATASETS_MAX_BYTES",
    },
}
OF_THE_CPU_PROFILE = {"FINETUNE_COMPARISON_MAX_TOKENS"}


def container(manifests: list[Manifest], component: str) -> dict[str, Any]:
    (only,) = named(manifests, "Deployment", f"finetune-{component}")["spec"]["template"]["spec"]["containers"]
    return dict(only)


def environment(manifests: list[Manifest], component: str) -> dict[str, Any]:
    """Values of plain variables, references of the others."""
    variables = container(manifests, component)["env"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in variables}


# Shape


@pytest.mark.parametrize("profile", PROFILES)
def test_lint_is_clean(helm: Helm, profile: str) -> None:
    done = helm.run("lint", "--strict", str(CHART), *PROFILES[profile])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("gatway.replicas=2", "'gatway' not allowed"),
        ("operator.replicas=2", "'replicas' not allowed"),
        ("gateway.replicas=0", "minimum"),
        ("profile=tpu", "profile"),
        ("image.operator.digest=latest", "digest"),
        ("storage.artifacts.accessModes={ReadOnlyMany}", "accessModes"),
        ("api.replicas=2", "set api.database.existingSecret"),
        ("prices.gpuTypes.NVIDIA-L4=cheap", "prices/gpuTypes/NVIDIA-L4"),
        ("baseModels.claimName=artifacts", "another volume than storage.artifacts.claimName"),
        ("baseModels.endpoint=hub.example", "endpoint"),
        ("api.ratings.existingSecret=", "existingSecret"),
        ("api.datasets.maxCount=0", "maxCount"),
        ("api.datasets.claimName=../x", "claimName"),
        ("baseModels.endpoint=https://user:password@hub.example", "endpoint"),
    ],
)
def test_wrong_values_are_refused(helm: Helm, setting: str, complaint: str) -> None:
    assert complaint in helm.refusal("--set", setting)


def test_readme_documents_every_value() -> None:
    assert values_table(["--check"]) == 0


def test_objects_are_unique_and_labelled(rendered: list[Manifest]) -> None:
    identities = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in rendered]
    assert len(identities) == len(set(identities))
    for manifest in rendered:
        found = manifest["metadata"]["labels"]
        assert found["app.kubernetes.io/managed-by"] == "Helm", manifest["metadata"]["name"]
        assert found["app.kubernetes.io/instance"] == "finetune", manifest["metadata"]["name"]


def test_common_labels_reach_everything_but_selectors(helm: Helm) -> None:
    manifests = helm.render("--set", "commonLabels.team=research")
    assert all(manifest["metadata"]["labels"]["team"] == "research" for manifest in manifests)
    for deployment in of_kind(manifests, "Deployment"):
        assert "team" not in deployment["spec"]["selector"]["matchLabels"]


# Pods


def test_pods_pass_restricted(rendered: list[Manifest]) -> None:
    pods = {manifest["metadata"]["name"]: manifest["spec"] for manifest in of_kind(rendered, "Pod")}
    pods |= {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in of_kind(rendered, "Deployment")}
    assert pods.keys() == {"finetune-operator", "finetune-gateway", "finetune-api", "finetune-test-health"}
    assert {name: found for name, pod in pods.items() if (found := pod_violations(pod))} == {}


@pytest.mark.parametrize("component", VARIABLES)
def test_read_only_root_leaves_a_place_to_write(rendered: list[Manifest], component: str) -> None:
    pod = named(rendered, "Deployment", f"finetune-{component}")["spec"]["template"]["spec"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container(rendered, component)["volumeMounts"]  # noqa: S108
    assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]


@pytest.mark.parametrize("component", VARIABLES)
def test_environment_is_what_the_process_reads(rendered: list[Manifest], component: str) -> None:
    found = environment(rendered, component)
    assert found.keys() - OF_THE_CPU_PROFILE == VARIABLES[component]
    assert found["FINETUNE_NAMESPACES"] == NAMESPACE


def test_processes_understand_their_environment(rendered: list[Manifest]) -> None:
    def filled(component: str) -> dict[str, str]:
        found = environment(rendered, component)
        return {name: value if isinstance(value, str) else "secret" for name, value in found.items()}

    operator = OperatorSettings.from_environment(filled("operator"))
    assert operator.namespaces == (NAMESPACE,)
    assert operator.config.api_url == f"http://finetune-api.{NAMESPACE}.svc"
    assert list(operator.config.engine_args) == yaml.safe_load(filled("operator")["FINETUNE_ENGINE_ARGS"])
    assert GatewaySettings.from_environment(filled("gateway")).drain_delay_seconds == 5
    assert ApiSettings.from_environment(filled("api")).gateway_url == f"http://finetune-gateway.{NAMESPACE}.svc"


def test_operator_never_runs_twice(rendered: list[Manifest]) -> None:
    spec = named(rendered, "Deployment", "finetune-operator")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_addresses_are_those_of_the_services(rendered: list[Manifest]) -> None:
    for component, (reader, variable) in {
        "api": ("operator", "FINETUNE_API_URL"),
        "gateway": ("api", "FINETUNE_GATEWAY_URL"),
    }.items():
        service = named(rendered, "Service", f"finetune-{component}")
        assert environment(rendered, reader)[variable] == f"http://finetune-{component}.{NAMESPACE}.svc"
        assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
        assert {"name": "http", "containerPort": 8080} in container(rendered, component)["ports"]
        template = named(rendered, "Deployment", f"finetune-{component}")["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()


def test_sqlite_keeps_its_file_on_a_volume(rendered: list[Manifest]) -> None:
    spec = named(rendered, "Deployment", "finetune-api")["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    assert environment(rendered, "api")["FINETUNE_DATABASE_URL"] == "sqlite+aiosqlite:////data/finetune.db"
    assert {"name": "data", "mountPath": "/data"} in container(rendered, "api")["volumeMounts"]
    claim = named(rendered, "PersistentVolumeClaim", "finetune-api")
    assert {"name": "data", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in (
        spec["template"]["spec"]["volumes"]
    )


def test_database_server_replaces_the_volume(helm: Helm) -> None:
    manifests = helm.render("--set", "api.database.existingSecret=postgres,api.replicas=3")
    assert environment(manifests, "api")["FINETUNE_DATABASE_URL"] == {
        "secretKeyRef": {"name": "postgres", "key": "url"}
    }
    assert named(manifests, "Deployment", "finetune-api")["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert {m["metadata"]["name"] for m in of_kind(manifests, "PersistentVolumeClaim")} == {"artifacts", "models"}


def test_ratings_url_is_a_file_that_may_come_later(helm: Helm) -> None:
    def volumes(*values: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
        manifests = helm.render(*(part for value in values for part in ("--set", value)))
        pod = named(manifests, "Deployment", "finetune-api")["spec"]["template"]["spec"]
        mounts = {mount["name"]: mount for mount in container(manifests, "api")["volumeMounts"]}
        return (
            environment(manifests, "api")["FINETUNE_RATINGS_URL_FILE"],
            mounts,
            {v["name"]: v for v in pod["volumes"]},
        )

    file, mounts, found = volumes()
    assert (
        file == str(ApiSettings.model_fields["ratings_url_file"].default) == f"{mounts['ratings-url']['mountPath']}/url"
    )
    secret = {"secretName": "ratings-db", "items": [{"key": "url", "path": "url"}], "optional": True}
    assert found["ratings-url"]["secret"] == secret
    assert "ratings" not in found
    _, mounts, found = volumes("api.ratings.existingSecret=pg", "api.ratings.existingSecretKey=dsn")
    assert found["ratings-url"]["secret"] | {"items": 0} == secret | {"secretName": "pg", "items": 0}
    assert found["ratings-url"]["secret"]["items"] == [{"key": "dsn", "path": "url"}]
    _, mounts, found = volumes("api.ratings.claimName=ratings")
    assert mounts["ratings"] == {"name": "ratings", "mountPath": "/ratings", "readOnly": True}
    assert found["ratings"]["persistentVolumeClaim"] == {"claimName": "ratings"}


@pytest.mark.parametrize(
    ("values", "directory"),
    [
        ((), "/data/datasets"),
        (("api.datasets.claimName=datasets",), "/datasets"),
        (("api.datasets.claimName=datasets", "api.database.existingSecret=pg"), "/datasets"),
        (("api.database.existingSecret=pg",), None),
    ],
)
def test_datasets_lie_on_a_volume_or_nowhere(helm: Helm, values: tuple[str, ...], directory: str | None) -> None:
    manifests = helm.render(*(part for value in values for part in ("--set", value)))
    found = environment(manifests, "api")
    settings = ApiSettings.from_environment(
        {name: value for name, value in found.items() if isinstance(value, str)}
        | {"FINETUNE_API_TOKEN": "t", "FINETUNE_INTERNAL_TOKEN": "t"}
    )
    assert (str(settings.datasets_directory) if settings.datasets_directory else None) == directory
    assert (settings.datasets_max_count, settings.datasets_max_bytes) == (100, 2**31)
    volumes = named(manifests, "Deployment", "finetune-api")["spec"]["template"]["spec"]["volumes"]
    lasting = [volume["name"] for volume in volumes if "persistentVolumeClaim" in volume]
    mounts = {mount["mountPath"]: mount["name"] for mount in container(manifests, "api")["volumeMounts"]}
    if directory:
        (place,) = (name for path, name in mounts.items() if f"{directory}/".startswith(f"{path}/") and name in lasting)
        assert place == ("datasets" if directory == "/datasets" else "data")


@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1)])
def test_gateways_have_a_disruption_budget_when_there_are_several(helm: Helm, replicas: int, budgets: int) -> None:
    manifests = helm.render("--set", f"gateway.replicas={replicas}")
    assert named(manifests, "Deployment", "finetune-gateway")["spec"]["replicas"] == replicas
    assert len(of_kind(manifests, "PodDisruptionBudget")) == budgets


def test_gateway_takes_the_tokens_of_clients_and_api(helm: Helm) -> None:
    manifests = helm.render("--set", "gateway.existingTokensSecret=clients")
    gateway, api_token = environment(manifests, "gateway"), {"name": "finetune-internal", "key": "api-token"}
    assert gateway["FINETUNE_GATEWAY_TOKENS"] == "$(FINETUNE_CLIENT_TOKENS),$(FINETUNE_API_TOKEN)"
    assert gateway["FINETUNE_CLIENT_TOKENS"] == {"secretKeyRef": {"name": "clients", "key": "tokens"}}
    assert gateway["FINETUNE_API_TOKEN"] == {"secretKeyRef": api_token}
    assert environment(manifests, "api")["FINETUNE_GATEWAY_API_KEY"] == {"secretKeyRef": api_token}
    # Kubernetes fills in only what stands before.
    assert list(gateway).index("FINETUNE_GATEWAY_TOKENS") > list(gateway).index("FINETUNE_API_TOKEN")
    assert list(gateway).index("FINETUNE_GATEWAY_TOKENS") > list(gateway).index("FINETUNE_CLIENT_TOKENS")


def test_limits_of_the_gateway_reach_its_settings(helm: Helm) -> None:
    chosen = "gateway.limits.requestsPerMinute=1000000,gateway.limits.tokensPerMinute=7,gateway.limits.requestsAtOnce=3"
    told = {name: str(value) for name, value in environment(helm.render("--set", chosen), "gateway").items()}
    settings = GatewaySettings.from_environment({name: value for name, value in told.items() if name in LIMITS})
    assert settings.limits == Limits(requests_per_minute=1_000_000, tokens_per_minute=7, concurrent_requests=3)
    assert {told[name] for name in LIMITS} == {"1000000", "7", "3"}
    copying = environment(helm.render("--set", "gateway.shadowsAtOnce=0"), "gateway")
    assert GatewaySettings.from_environment({SHADOWS: copying[SHADOWS]}).max_concurrent_shadows == 0
    unlimited = environment(helm.render(), "gateway")
    assert int(unlimited[SHADOWS]) == GatewaySettings().max_concurrent_shadows
    assert {unlimited[name] for name in LIMITS} == {"0"}


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ((), "ghcr.io/finetune-operator/operator:0.1.0"),
        (("--set", "image.operator.tag=2.0"), "ghcr.io/finetune-operator/operator:2.0"),
        (
            ("--set", f"image.operator.tag=2.0,image.operator.digest=sha256:{'a' * 64}"),
            f"ghcr.io/finetune-operator/operator@sha256:{'a' * 64}",
        ),
        (PROFILES["cpu"], "localhost/finetune-operator/operator:dev"),
    ],
    ids=["default", "tag", "digest", "cpu"],
)
def test_image_by_tag_or_digest(helm: Helm, options: tuple[str, ...], image: str) -> None:
    manifests = helm.render(*options)
    assert {container(manifests, component)["image"] for component in VARIABLES} == {image}
    assert environment(manifests, "operator")["FINETUNE_OPERATOR_IMAGE"] == image


BASE_MODELS = [
    ((), "models", "", {}),
    (("storage.models.claimName=weights",), "weights", "", {}),
    (
        ("baseModels.claimName=hub", "baseModels.endpoint=https://hub.example", "baseModels.env.HTTPS_PROXY=http://p"),
        "hub",
        "https://hub.example",
        {"HTTPS_PROXY": "http://p"},
    ),
]


@pytest.mark.parametrize(("values", "claim", "endpoint", "variables"), BASE_MODELS)
def test_where_models_of_the_hub_come_from_and_go(
    helm: Helm, values: tuple[str, ...], claim: str, endpoint: str, variables: dict[str, str]
) -> None:
    found = environment(helm.render(*(part for value in values for part in ("--set", value))), "operator")
    assert (found["FINETUNE_BASE_MODELS_CLAIM"], found["FINETUNE_HUB_ENDPOINT"]) == (claim, endpoint)
    assert yaml.safe_load(found["FINETUNE_FETCH_ENV"]) == variables


def test_cpu_profile_configures_the_engine(helm: Helm) -> None:
    found = environment(helm.render(*PROFILES["cpu"]), "operator")
    assert yaml.safe_load(found["FINETUNE_ENGINE_ARGS"]) == ["--enforce-eager", "--dtype", "float32"]
    assert yaml.safe_load(found["FINETUNE_ENGINE_ENV"])["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_the_operator_reads_the_prices_that_the_chart_writes(helm: Helm) -> None:
    values = "--set-string", r"prices.perHour.nvidia\.com/gpu=2.50", "--set", "prices.gpuTypes.NVIDIA-L4=0.8"
    book = price_book(environment(helm.render(*values), "operator")["FINETUNE_PRICES"])
    assert book == PriceBook(per_hour={"nvidia.com/gpu": Decimal("2.50")}, gpu_types={"NVIDIA-L4": Decimal("0.8")})
    assert price_book(environment(helm.render(), "operator")["FINETUNE_PRICES"]) == PriceBook()


def test_pod_settings_reach_their_pod_only(helm: Helm, tmp_path: Path) -> None:
    settings = {
        "podAnnotations": {"example.com/scrape": "true"},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "important",
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    }
    values = tmp_path / "values.yaml"
    for component in VARIABLES:
        values.write_text(yaml.safe_dump({component: settings, "image": {"pullSecrets": ["registry"]}}))
        manifests = helm.render("--values", str(values))
        for other in VARIABLES:
            template = named(manifests, "Deployment", f"finetune-{other}")["spec"]["template"]
            is_set = other == component
            assert (template["metadata"].get("annotations") == settings["podAnnotations"]) is is_set
            assert ("HTTPS_PROXY" in environment(manifests, other)) is is_set
            for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
                assert (template["spec"].get(field) == settings[field]) is is_set, f"{other}.{field}"
            assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        workload = named(manifests, "ServiceAccount", "finetune-workload")
        assert workload["imagePullSecrets"] == [{"name": "registry"}]


# Namespaces, rights and secrets


def test_no_right_on_secrets_and_none_beyond_the_namespace(rendered: list[Manifest]) -> None:
    roles = of_kind(rendered, "Role", "ClusterRole")
    assert roles
    for role in roles:
        for entry in role["rules"]:
            assert not {"secrets", "*"} & {*entry["resources"], *entry["verbs"], *entry["apiGroups"]}, entry
    assert not of_kind(rendered, "ClusterRoleBinding")


def test_rights_are_exactly_these(rendered: list[Manifest]) -> None:
    def rights(component: str) -> dict[str, set[str]]:
        rules = named(rendered, "Role", f"finetune-{component}")["rules"]
        return {resource: set(entry["verbs"]) for entry in rules for resource in entry["resources"]}

    read = {"get", "list", "watch"}
    reader = {"modelversions": read, "abtests": read}
    assert rights("gateway") == rights("api") == reader
    assert rights("remote") == {"finetunejobs": {"get"}, "jobs": {"get"}}
    assert rights("operator") == {
        "finetunejobs": {"list", "watch"},
        "finetunejobs/status": {"patch"},
        "modelversions": read | {"create"},
        "modelversions/status": {"patch"},
        "abtests": {"list", "watch"},
        "abtests/status": {"patch"},
        "batchinferences": {"list", "watch"},
        "batchinferences/status": {"patch"},
        "jobs": read | {"create", "patch", "delete"},
        "deployments": {"list", "watch", "create", "patch", "delete"},
        "services": {"create", "patch"},
        "configmaps": {"create", "patch"},
        "pods": {"list", "watch"},
        "events": {"create"},
    }


def test_workload_has_neither_rights_nor_a_token(rendered: list[Manifest]) -> None:
    account = named(rendered, "ServiceAccount", "finetune-workload")
    assert account["automountServiceAccountToken"] is False
    subjects = [s["name"] for binding in of_kind(rendered, "RoleBinding") for s in binding["subjects"]]
    assert sorted(subjects) == ["finetune-api", "finetune-gateway", "finetune-operator", "finetune-remote"]
    # Its pods ask for a token, and give it to the one container that asks the API server.
    assert named(rendered, "ServiceAccount", "finetune-remote")["automountServiceAccountToken"] is False


def test_each_watched_namespace_has_what_its_pods_need(helm: Helm) -> None:
    manifests = helm.render(*TWO_NAMESPACES)
    for namespace in WATCHED:
        for component in VARIABLES:
            named(manifests, "Role", f"finetune-{component}", namespace)
            (subject,) = named(manifests, "RoleBinding", f"finetune-{component}", namespace)["subjects"]
            assert subject == {"kind": "ServiceAccount", "name": f"finetune-{component}", "namespace": NAMESPACE}
        named(manifests, "ServiceAccount", "finetune-workload", namespace)
        named(manifests, "ServiceAccount", "finetune-remote", namespace)
        (subject,) = named(manifests, "RoleBinding", "finetune-remote", namespace)["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "finetune-remote", "namespace": namespace}
        for claim in ("artifacts", "models"):
            named(manifests, "PersistentVolumeClaim", claim, namespace)
        for policy in ("engine", "evaluator", "batch-inference", "trainer"):
            named(manifests, "NetworkPolicy", f"finetune-{policy}", namespace)
    assert {m["metadata"]["namespace"] for m in of_kind(manifests, "Role", "NetworkPolicy")} == set(WATCHED)
    assert environment(manifests, "operator")["FINETUNE_NAMESPACES"] == ",".join(WATCHED)


def test_secrets_of_all_namespaces_agree_and_only_ours_has_the_api_token(helm: Helm) -> None:
    manifests = helm.render(*TWO_NAMESPACES)
    own = named(manifests, "Secret", "finetune-internal")["data"]
    assert own.keys() == SECRET_KEYS
    assert len(set(own.values())) == len(SECRET_KEYS)
    assert min(map(len, own.values())) >= 43
    for namespace in WATCHED:
        data = named(manifests, "Secret", "finetune-internal", namespace)["data"]
        assert data == {key: own[key] for key in ("internal-token", "engine-api-key")}


def test_secret_is_the_one_that_workloads_read(helm: Helm) -> None:
    manifests = helm.render()
    assert environment(manifests, "operator")["FINETUNE_SECRET_NAME"] == "finetune-internal"  # noqa: S105
    assert {serving.ENGINE_API_KEY_KEY, training.INTERNAL_TOKEN_KEY} <= SECRET_KEYS


def test_existing_secret_replaces_ours(helm: Helm) -> None:
    manifests = helm.render(*TWO_NAMESPACES, "--set", "secret.existingSecret=sealed")
    assert not of_kind(manifests, "Secret")
    assert environment(manifests, "operator")["FINETUNE_SECRET_NAME"] == "sealed"  # noqa: S105
    references = {
        value["secretKeyRef"]["name"]
        for component in VARIABLES
        for value in environment(manifests, component).values()
        if isinstance(value, dict)
    }
    assert references == {"sealed"}


def test_data_outlives_the_release(rendered: list[Manifest]) -> None:
    lasting = of_kind(rendered, "PersistentVolumeClaim", "Secret", "CustomResourceDefinition")
    assert len(lasting) == 4 + 1 + 3
    for manifest in lasting:
        assert manifest["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", manifest["metadata"]["name"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), None),
        (("--set-string", "storage.models.storageClassName=fast"), "fast"),
        (("--set-string", "storage.models.storageClassName="), ""),
    ],
    ids=["default class", "named class", "no class"],
)
def test_storage_class(helm: Helm, options: tuple[str, ...], expected: str | None) -> None:
    claim = named(helm.render(*options), "PersistentVolumeClaim", "models")
    assert claim["spec"].get("storageClassName") == expected


def test_volumes_can_be_made_by_others(helm: Helm) -> None:
    manifests = helm.render("--set", "storage.models.create=false,storage.artifacts.claimName=adapters")
    claims = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "PersistentVolumeClaim")}
    assert claims == {"adapters", "finetune-api"}
    assert environment(manifests, "operator")["FINETUNE_ARTIFACTS_CLAIM"] == "adapters"


# Network


def test_engine_answers_operator_gateway_and_those_that_ask_alone(rendered: list[Manifest]) -> None:
    spec = named(rendered, "NetworkPolicy", "finetune-engine")["spec"]
    engine = labels(serving.COMPONENT_NAME, {})
    assert spec["podSelector"]["matchLabels"] == engine
    assert spec["policyTypes"] == ["Ingress"]
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": ENGINE_PORT}]
    *processes, evaluators, batches = rule["from"]
    # No namespaceSelector: only those of the engine's own namespace.
    for peer, component in ((evaluators, evaluation.COMPONENT_NAME), (batches, batch_inference.COMPONENT_NAME)):
        assert peer == {"podSelector": {"matchLabels": labels(component, {})}}
    admitted = set()
    for peer in processes:
        assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
        wanted = peer["podSelector"]["matchLabels"].items()
        admitted |= {
            deployment["metadata"]["name"]
            for deployment in of_kind(rendered, "Deployment")
            if wanted <= deployment["spec"]["template"]["metadata"]["labels"].items()
        }
    assert admitted == {"finetune-operator", "finetune-gateway"}


def test_trainers_answer_each_other_alone(rendered: list[Manifest]) -> None:
    spec = named(rendered, "NetworkPolicy", "finetune-trainer")["spec"]
    assert spec["podSelector"]["matchLabels"] == labels(training.COMPONENT_NAME, {})
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [{"from": [{"podSelector": spec["podSelector"]}]}]


@pytest.mark.parametrize("component", [evaluation.COMPONENT_NAME, batch_inference.COMPONENT_NAME])
def test_those_that_ask_answer_nobody(rendered: list[Manifest], component: str) -> None:
    spec = named(rendered, "NetworkPolicy", f"finetune-{component}")["spec"]
    assert spec == {
        "podSelector": {"matchLabels": labels(component, {})},
        "policyTypes": ["Ingress"],
    }


def test_network_policies_can_be_left_out(helm: Helm) -> None:
    assert not of_kind(helm.render("--set", "networkPolicy.enabled=false"), "NetworkPolicy")


# CustomResourceDefinitions


def test_chart_has_the_same_definitions_as_the_models() -> None:
    assert finetune_operator(["crds", "--check", str(CHART / "files" / "crds")]) == 0
    assert finetune_operator(["crds", "--check", str(REPOSITORY / "crds")]) == 0


def test_rendering_keeps_the_definitions(helm: Helm) -> None:
    """Helm reads YAML 1.2 and sorts: a text like 2e-4 must not come out as a number."""
    rendered = {m["metadata"]["name"]: m["spec"] for m in of_kind(helm.render(), "CustomResourceDefinition")}
    written = [yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "crds").glob("*.yaml"))]
    assert rendered == {definition["metadata"]["name"]: definition["spec"] for definition in written}


def test_definitions_are_optional_and_can_be_let_go(helm: Helm) -> None:
    assert not of_kind(helm.render("--set", "crds.install=false"), "CustomResourceDefinition")
    for definition in of_kind(helm.render("--set", "crds.keep=false"), "CustomResourceDefinition"):
        assert "annotations" not in definition["metadata"]
    sync = "crds.annotations.argocd\\.argoproj\\.io/sync-options=ServerSideApply=true"
    for definition in of_kind(helm.render("--set", sync), "CustomResourceDefinition"):
        annotations = definition["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-options"] == "ServerSideApply=true"
        assert annotations["helm.sh/resource-policy"] == "keep"


def test_cluster_roles_are_aggregated_and_leave_status_alone(helm: Helm) -> None:
    manifests = helm.render()
    edit = named(manifests, "ClusterRole", f"{NAMESPACE}-finetune-edit", None)
    assert not [name for entry in edit["rules"] for name in entry["resources"] if "/" in name]
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    view = named(manifests, "ClusterRole", f"{NAMESPACE}-finetune-view", None)
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert not of_kind(helm.render("--set", "rbac.aggregateClusterRoles=false"), "ClusterRole")


# Notes


def rendered_notes(helm: Helm, directory: Path, *options: str) -> str:
    """NOTES.txt as a user sees it: `helm template` leaves it out, so a copy of the chart shows it in a ConfigMap."""
    chart = Path(shutil.copytree(CHART, directory / "chart"))
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}\n'
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes, namespace: models}\n"
        'data: {notes: {{ include "notes" . | toJson }} }\n'
    )
    return str(named(helm.render(*options, chart=chart), "ConfigMap", "notes")["data"]["notes"])


@pytest.mark.parametrize("profile", PROFILES)
def test_notes_have_a_valid_first_job(helm: Helm, tmp_path: Path, profile: str) -> None:
    notes = rendered_notes(helm, tmp_path, *PROFILES[profile])
    body = yaml.safe_load(notes.split("<<'EOF'\n")[1].split("\nEOF\n")[0])
    body["metadata"]["uid"] = "uid"
    assert FineTuneJob.parse(body).spec.model == "plato"
    for command in (
        "port-forward service/finetune-gateway 8080:80",
        "port-forward service/finetune-api 8081:80",
        "get secret finetune-internal -o jsonpath='{.data.api-token}'",
    ):
        assert f"kubectl -n {NAMESPACE} {command}" in notes


@pytest.mark.parametrize(
    ("setting", "without", "warning"),
    [
        ("gateway.existingTokensSecret=clients", True, "the gateway is open"),
        ("networkPolicy.enabled=false", False, "only the API key keeps other pods from vLLM"),
        ("secret.existingSecret=sealed", True, "with new random tokens"),
        ("api.database.existingSecret=postgres", True, "SQLite on one volume"),
        ("storage.models.accessModes={ReadWriteOnce}", False, "volume models is not ReadWriteMany"),
    ],
)
def test_notes_warn(helm: Helm, tmp_path: Path, setting: str, without: bool, warning: str) -> None:
    assert (warning in rendered_notes(helm, tmp_path / "default")) is without
    assert (warning in rendered_notes(helm, tmp_path / "changed", "--set", setting)) is not without
