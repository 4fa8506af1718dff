"""The pods of the chart's processes: locked down, and told what their processes read."""

from decimal import Decimal

import pytest
import yaml

from finetune_operator.core.cost import PriceBook, price_book
from finetune_operator.gateway.limits import Limits
from finetune_operator.gateway.settings import GatewaySettings
from finetune_operator.shell.settings import Settings as OperatorSettings
from finetune_operator.web.settings import Settings as ApiSettings
from tests.helm.components import LIMITS, SHADOWS, VARIABLES, container, environment
from tests.helm.conftest import NAMESPACE, PROFILES, Helm, Manifest, named, of_kind
from tests.helm.pod_security import pod_violations

OF_THE_CPU_PROFILE = {"FINETUNE_COMPARISON_MAX_TOKENS"}


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
    gateway = GatewaySettings.from_environment(filled("gateway"))
    assert gateway.drain_delay_seconds == 5
    pod = named(rendered, "Deployment", "finetune-gateway")["spec"]["template"]["spec"]
    assert gateway.drain_delay_seconds + gateway.drain_timeout_seconds < pod["terminationGracePeriodSeconds"]
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


@pytest.mark.parametrize("component", ["operator", "api"])
def test_the_prices_are_read_that_the_chart_writes(helm: Helm, component: str) -> None:
    values = "--set-string", r"prices.perHour.nvidia\.com/gpu=2.50", "--set", "prices.gpuTypes.NVIDIA-L4=0.8"
    book = price_book(environment(helm.render(*values), component)["FINETUNE_PRICES"])
    assert book == PriceBook(per_hour={"nvidia.com/gpu": Decimal("2.50")}, gpu_types={"NVIDIA-L4": Decimal("0.8")})
    assert price_book(environment(helm.render(), component)["FINETUNE_PRICES"]) == PriceBook()
