"""Pages of versions and of base models: what there is, what answers now, deploying and going back."""

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, Response

from finetune_operator.core.base_model_catalogue import CATALOGUE
from finetune_operator.core.version_changes import TEXT_METRICS
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.resources.evaluation import Metric
from finetune_operator.resources.modelversion import State
from finetune_operator.web import versions
from finetune_operator.web.dashboard.commands import version_commands
from finetune_operator.web.dashboard.fine_tuning import PATH
from finetune_operator.web.dashboard.forms import described, request_of
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.policy import safe_path
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import VisitOf
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN, NamespaceQuery, ObjectId
from finetune_operator.web.job_routes import After
from finetune_operator.web.version_views import QUESTIONS_MAX, DeployRequest, EvaluateRequest, RollbackRequest

MODELS_PATH = f"{PATH}/models"
LISTED = 50
Namespace = Annotated[str, Path(pattern=f"^{NAMESPACE_PATTERN}$")]
Name = Annotated[str, Path(max_length=253, pattern=f"^{NAME_PATTERN}$")]
Text = Annotated[str | None, Query(max_length=256)]

Answers = Literal["texts", "labels", "exact"]
METRICS_OF: dict[Answers, tuple[Metric, ...]] = {
    "texts": TEXT_METRICS,
    "labels": (Metric.ACCURACY, Metric.PRECISION, Metric.RECALL, Metric.F1),
    "exact": (Metric.EXACT_MATCH, Metric.SUBSTRING_MATCH),
}

router = page_router(PATH)


class MeasureForm(BaseModel):
    """What a page lets people choose of an evaluation."""

    model_config = ConfigDict(frozen=True)

    answers: Answers = "texts"
    max_examples: Annotated[int, Field(ge=1, le=QUESTIONS_MAX)] | None = None
    saturation: bool = False


def model_path(found: ObjectId) -> str:
    return f"{MODELS_PATH}/{found.namespace}/{found.name}"


@router.get("/models")
async def models_page(
    visit: VisitOf,
    namespace: NamespaceQuery = None,
    state: State | None = None,
    model: Text = None,
    philosopher: Text = None,
    domain: Text = None,
    after: After = None,
) -> HTMLResponse:
    """Versions, the newest first; philosopher and domain are those of their training."""
    chosen = {"model": model or None, "philosopher": philosopher or None, "domain": domain or None}
    listed = await part(
        versions.get_models(
            visit.services,
            visit.caller,
            namespace=namespace,
            state=state,
            limit=LISTED,
            after=after,
            **chosen,
        )
    )
    return visit.render(
        "models.html",
        models=listed.value,
        refusal=listed.refusal,
        namespace=namespace,
        states=tuple(State),
        state=state,
        chosen=chosen,
        query=urlencode({name: text for name, text in ({"namespace": namespace} | chosen).items() if text}),
        is_first_page=after is None,
    )


@router.get("/models/{namespace}/{name}")
async def model_page(visit: VisitOf, namespace: Namespace, name: Name) -> HTMLResponse:
    """One version."""
    found = ObjectId(namespace, name)
    version = await versions.get_model(visit.services, visit.caller, str(found))
    return visit.render(
        "model.html",
        version=version,
        path_of_model=model_path(found),
        yaml=yaml_text(version.manifest),
        commands=version_commands(found),
        fields=described(DeployRequest),
    )


@router.post("/models/{namespace}/{name}/deploy")
async def deploy(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    """Serve it, and have the model's name stand for it."""
    found = ObjectId(namespace, name)
    request = request_of(DeployRequest, await visit.form())
    await versions.post_deploy(visit.services, visit.caller, str(found), request)
    return visit.go(model_path(found))


@router.post("/models/{namespace}/{name}/serve")
async def serve(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    """Serve it beside the one that answers."""
    found = ObjectId(namespace, name)
    request = request_of(DeployRequest, await visit.form())
    await versions.post_serve(visit.services, visit.caller, str(found), request)
    return visit.go(model_path(found))


@router.post("/models/{namespace}/{name}/evaluate")
async def measure(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    """Measure it beside its base model."""
    found = ObjectId(namespace, name)
    form = await visit.form()
    said = request_of(MeasureForm, form)
    chosen = {"max_examples": said.max_examples} if said.max_examples is not None else {}
    request = EvaluateRequest(metrics=METRICS_OF[said.answers], saturation=said.saturation, **chosen)
    await versions.post_evaluate(visit.services, visit.caller, str(found), request)
    following = form.get("next")
    return visit.go(safe_path(following) if isinstance(following, str) else model_path(found))


@router.post("/models/{namespace}/{name}/rollback")
async def roll_back(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    """Have the version answer again that did before it."""
    found = ObjectId(namespace, name)
    request = request_of(RollbackRequest, await visit.form())
    now = await versions.post_rollback(visit.services, visit.caller, str(found), request)
    return visit.go(model_path(ObjectId(now.namespace, now.name)))


@router.get("/base-models")
async def base_models_page(visit: VisitOf) -> HTMLResponse:
    """Well-known models to begin with."""
    return visit.render("base_models.html", catalogue=CATALOGUE)


PAGE = Page(router)
