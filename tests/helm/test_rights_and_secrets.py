"""Who may do what in which namespace, and who is told which secret."""

from finetune_operator.manifests import serving, training
from finetune_operator.web.identity import VOTE
from finetune_operator.web.settings import Settings
from tests.helm.components import VARIABLES, environment
from tests.helm.conftest import NAMESPACE, Helm, Manifest, named, of_kind

WATCHED = ("team-a", "team-b")
TWO_NAMESPACES = ("--set", f"watchNamespaces={{{','.join(WATCHED)}}}")
SECRET_KEYS = {"internal-token", "engine-api-key", "api-token"}


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
    assert rights("gateway") == reader
    kept = {plural: {"list", "watch"} for plural in ("finetunejobs", "batchinferences")}
    assert rights("api") == reader | kept, "not get: those are read as the caller"
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


ROBOT, DEPLOYER = "api.keys.serviceAccounts[0]", "api.keys.serviceAccounts[1]"
KEY_ACCOUNTS = ("--set", f"{ROBOT}.namespace=ci,{ROBOT}.name=robot,{DEPLOYER}.namespace=ci,{DEPLOYER}.name=deployer")


def test_tokens_are_made_for_listed_service_accounts_alone(helm: Helm, rendered: list[Manifest]) -> None:
    tokens = "serviceaccounts/token"
    assert tokens not in {name for role in of_kind(rendered, "Role") for e in role["rules"] for name in e["resources"]}
    assert "FINETUNE_API_KEY_ACCOUNTS" not in environment(rendered, "api")
    manifests = helm.render(*KEY_ACCOUNTS)
    assert environment(manifests, "api")["FINETUNE_API_KEY_ACCOUNTS"] == "ci/robot,ci/deployer"
    assert named(manifests, "Role", "finetune-api-keys", "ci")["rules"] == [
        {"apiGroups": [""], "resources": [tokens], "resourceNames": ["deployer", "robot"], "verbs": ["create"]}
    ]
    (subject,) = named(manifests, "RoleBinding", "finetune-api-keys", "ci")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "finetune-api", "namespace": NAMESPACE}
    without = helm.render(*KEY_ACCOUNTS, "--set", "rbac.create=false")
    assert not of_kind(without, "Role"), "whoever makes the Roles makes this one, too"


def test_the_log_in_at_an_issuer_is_what_the_api_reads(helm: Helm, rendered: list[Manifest]) -> None:
    assert not {name for name in environment(rendered, "api") if "OIDC" in name}
    oidc = "clientId=dashboard,api.oidc.existingSecret=oidc,api.oidc.redirectUrl=https://host/login/oidc/callback"
    told = environment(helm.render("--set", f"api.oidc.issuer=https://issuer.example,api.oidc.{oidc}"), "api")
    assert told["FINETUNE_OIDC_CLIENT_SECRET"] == {"secretKeyRef": {"name": "oidc", "key": "client-secret"}}
    plain = {name: value for name, value in told.items() if isinstance(value, str)}
    settings = Settings.from_environment(plain | {"FINETUNE_API_TOKEN": "t", "FINETUNE_INTERNAL_TOKEN": "t"})
    assert settings.oidc
    assert (settings.oidc.issuer, settings.oidc.client_id) == ("https://issuer.example", "dashboard")


def test_cluster_roles_are_aggregated_and_leave_status_alone(helm: Helm) -> None:
    manifests = helm.render()
    edit = named(manifests, "ClusterRole", f"{NAMESPACE}-finetune-edit", None)
    assert [name for entry in edit["rules"] for name in entry["resources"] if "/" in name] == [
        "abtests/votes",
        "modelversions/completions",
    ]
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    view = named(manifests, "ClusterRole", f"{NAMESPACE}-finetune-view", None)
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert not of_kind(helm.render("--set", "rbac.aggregateClusterRoles=false"), "ClusterRole")


def test_votes_are_judged_and_granted_by_the_same_name(helm: Helm) -> None:
    edit = named(helm.render(), "ClusterRole", f"{NAMESPACE}-finetune-edit", None)
    (votes,) = [entry for entry in edit["rules"] if VOTE.resource in entry["resources"]]
    assert votes["verbs"] == [VOTE.verb]


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
