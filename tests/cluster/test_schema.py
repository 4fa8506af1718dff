"""What the API server accepts and refuses by the CRDs alone, and what kubectl shows of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from finetune_operator.kube.errors import Rejected
from finetune_operator.kube.paths import PLURALS
from finetune_operator.resources import batch_inference as batch_inference_model
from finetune_operator.resources.finetunejob import IMMUTABLE_FIELDS
from tests.cluster.control_plane import REPOSITORY, CommandFailed, ControlPlane
from tests.cluster.samples import ab_test, batch_inference, fine_tune_job, merged, model_version
from tests.cluster.schema_cases import abtest, base_model, evaluation, finetunejob, modelversion, provider, training
from tests.cluster.schema_cases import batch_inference as batch_cases
from tests.cluster.schema_cases.case import SAMPLES, Creation, Update, sample

ACCEPTED = [
    *base_model.ACCEPTED,
    *finetunejob.ACCEPTED,
    *evaluation.ACCEPTED,
    *training.ACCEPTED,
    *provider.ACCEPTED,
    *modelversion.ACCEPTED,
    *abtest.ACCEPTED,
    *batch_cases.ACCEPTED,
]
REFUSED = [
    *base_model.REFUSED,
    *finetunejob.REFUSED,
    *evaluation.REFUSED,
    *training.REFUSED,
    *provider.REFUSED,
    *modelversion.REFUSED,
    *abtest.REFUSED,
    *batch_cases.REFUSED,
]
UPDATES = [
    *finetunejob.UPDATES,
    *evaluation.UPDATES,
    *modelversion.UPDATES,
    *abtest.UPDATES,
    *batch_cases.UPDATES,
]


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.title)
async def test_the_api_server_accepts(control_plane: ControlPlane, bare_namespace: str, case: Creation) -> None:
    body = sample(case.kind, case.name, case.spec)

    made = await control_plane.client.create(PLURALS[case.kind], bare_namespace, body)

    assert made["metadata"]["uid"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.title)
async def test_the_api_server_refuses(control_plane: ControlPlane, bare_namespace: str, case: Creation) -> None:
    body = sample(case.kind, case.name, case.spec)

    with pytest.raises(Rejected) as refusal:
        await control_plane.client.create(PLURALS[case.kind], bare_namespace, body)

    assert case.refused is not None
    assert case.refused in str(refusal.value)


@pytest.mark.parametrize("case", UPDATES, ids=lambda case: case.title)
async def test_an_update(control_plane: ControlPlane, bare_namespace: str, case: Update) -> None:
    plural = PLURALS[case.kind]
    made = await control_plane.client.create(plural, bare_namespace, sample(case.kind, None, case.created))
    if case.status:
        name, status = made["metadata"]["name"], {"status": case.status}
        await control_plane.client.merge_patch(plural, bare_namespace, name, status, "status")
    patch = control_plane.client.merge_patch(plural, bare_namespace, made["metadata"]["name"], {"spec": case.patch})

    if case.refused is None:
        changed = await patch
        assert changed["spec"] == merged(made["spec"], case.patch)
        assert changed["metadata"]["generation"] == 2
    else:
        with pytest.raises(Rejected, match="is invalid") as refusal:
            await patch
        assert case.refused in str(refusal.value)


def test_every_rule_of_the_crds_has_a_refused_case() -> None:
    wanted = {message for path in (REPOSITORY / "crds").glob("*.yaml") for message in _messages(_load(path))}
    said = (*(case.refused for case in REFUSED), *(case.refused for case in UPDATES))
    refusals = [text for text in said if text]

    untested = {message for message in wanted if not any(message in text for text in refusals)}

    assert wanted
    assert untested == set()


def test_every_immutable_field_of_what_runs_once_has_a_case() -> None:
    assert set(finetunejob.CHANGED) == set(IMMUTABLE_FIELDS)
    assert set(batch_cases.CHANGED) == set(batch_inference_model.IMMUTABLE_FIELDS)


async def test_unknown_fields_are_pruned_from_spec_and_status(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "pruned"
    await client.create("finetunejobs", bare_namespace, fine_tune_job(name, colour="blue"))
    status = {"phase": "Training", "mood": "good", "progress": {"percent": 3, "weather": "fine"}}

    written = await client.merge_patch("finetunejobs", bare_namespace, name, {"status": status}, "status")

    assert "colour" not in written["spec"]
    assert written["status"] == {"phase": "Training", "progress": {"percent": 3}}


async def test_a_status_write_can_not_change_the_spec(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "guarded"
    made = await client.create("finetunejobs", bare_namespace, fine_tune_job(name))
    body = {"spec": {"suspend": True}, "status": {"phase": "Training"}}

    written = await client.merge_patch("finetunejobs", bare_namespace, name, body, "status")

    assert written["spec"] == made["spec"]
    assert written["metadata"]["generation"] == 1


async def test_a_status_outside_the_schema_is_refused(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "strict"
    await client.create("finetunejobs", bare_namespace, fine_tune_job(name))

    with pytest.raises(Rejected, match="supported values"):
        await client.merge_patch("finetunejobs", bare_namespace, name, {"status": {"phase": "Dancing"}}, "status")


COLUMNS = [
    ("ftj", "NAME PHASE PROGRESS EPOCH LOSS ETA VERSION AGE", "BEST BASE METHOD ROWS COST MESSAGE"),
    ("modelver", "NAME MODEL VERSION STATE LOADED PROMOTED AGE", "BASE ENGINE EVALUATED RATING PASSED MESSAGE"),
    ("abt", "NAME PHASE SPLIT VOTES WINRATE P-VALUE LEADER VERDICT AGE", "BASELINE CANDIDATE NEEDED SCORE MESSAGE"),
    ("batch", "NAME VERSION PHASE PROGRESS FAILED ETA AGE", "ROWS COST RESULTS MESSAGE"),
]


@pytest.mark.parametrize(("short_name", "usual", "wide"), COLUMNS, ids=[row[0] for row in COLUMNS])
async def test_kubectl_prints(
    control_plane: ControlPlane, bare_namespace: str, short_name: str, usual: str, wide: str
) -> None:
    for kind in SAMPLES:
        await control_plane.client.create(PLURALS[kind], bare_namespace, sample(kind, None, {}))

    narrow = (await control_plane.kubectl("get", short_name, "-n", bare_namespace)).splitlines()[0]
    full = (await control_plane.kubectl("get", short_name, "-n", bare_namespace, "-o", "wide")).splitlines()[0]

    assert narrow.split() == usual.split()
    assert set(full.split()) == {*usual.split(), *wide.split()}


async def test_kubectl_get_finetuning_shows_all_kinds(control_plane: ControlPlane) -> None:
    await control_plane.kubectl("create", "namespace", "category")
    for body in (fine_tune_job(), model_version(), ab_test(), batch_inference()):
        await control_plane.client.create(PLURALS[body["kind"]], "category", body)

    shown = await control_plane.kubectl("get", "finetuning", "-n", "category", "-o", "name")

    assert sorted(shown.split()) == [
        "abtest.finetune.dev/duel",
        "batchinference.finetune.dev/answers",
        "finetunejob.finetune.dev/plato-1",
        "modelversion.finetune.dev/plato-v1",
    ]


async def test_kubectl_refuses_a_misspelt_field(control_plane: ControlPlane, bare_namespace: str) -> None:
    body = yaml.safe_dump(fine_tune_job("misspelt", trainning={"epochs": 2}))

    with pytest.raises(CommandFailed, match=r'unknown field "spec\.trainning"'):
        await control_plane.kubectl("apply", "-n", bare_namespace, "-f", "-", stdin=body)


async def test_a_version_is_scaled_by_kubectl_scale(control_plane: ControlPlane, bare_namespace: str) -> None:
    client, name = control_plane.client, "scaled-v1"
    await client.create("modelversions", bare_namespace, model_version(name))
    status = {"readyReplicas": 1, "selector": "finetune.dev/engine=vllm-x"}
    await client.merge_patch("modelversions", bare_namespace, name, {"status": status}, "status")

    await control_plane.kubectl("scale", "-n", bare_namespace, f"modelver/{name}", "--replicas=3")

    scaled = await client.get("modelversions", bare_namespace, name)
    path = f"/apis/finetune.dev/v1alpha1/namespaces/{bare_namespace}/modelversions/{name}/scale"
    scale = yaml.safe_load(await control_plane.kubectl("get", "--raw", path))
    assert scaled["spec"]["serving"]["replicas"] == 3
    assert scale["status"] == {"replicas": 1, "selector": "finetune.dev/engine=vllm-x"}


def _load(path: Any) -> Any:
    return yaml.safe_load(path.read_text())


def _messages(node: Any) -> Iterator[str]:
    """Messages of all validation rules below a node."""
    if isinstance(node, dict):
        yield from (rule["message"] for rule in node.get("x-kubernetes-validations", []))
        for value in node.values():
            yield from _messages(value)
    elif isinstance(node, list):
        for value in node:
            yield from _messages(value)
