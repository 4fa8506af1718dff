"""Each action of a page has its command on that page, and the command is one that its tool takes."""

import re
from html import unescape

import pytest

from tests.builders import merged
from tests.unit.web.contract.corpus import places
from tests.unit.web.contract.page_places import BUTTONS, FORMS, GOOD_FORMS, TRAINED, VOTE, page_document
from tests.unit.web.dashboard import experiment_sights, prices, sights
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.experiment_sights import TEST, Philosophers
from tests.unit.web.dashboard.sights import NAMESPACE
from tests.unit.web.dashboard.terminal import TOOLS, obeyed

JOBS = "/fine-tuning/jobs/{namespace}/{name}"
MODEL = "/fine-tuning/models/{namespace}/{name}"
PROMOTE = r"ftctl promote plato-v\d -n finetune"
ROLLBACK = r"ftctl rollback plato-v\d -n finetune"
SUBMIT = r"ftctl submit -f \S+"
ACTIONS: dict[str, str] = {
    "/api-keys": r"curl -X POST .*/v1/api-keys\"",
    "/api-keys/{key_id}/revoke": r"curl -X DELETE .*/v1/api-keys/<id>",
    f"{JOBS}/cancel": r"ftctl cancel plato-\w+ -n finetune",
    f"{JOBS}/suspend": r"ftctl suspend plato-\w+ -n finetune",
    f"{JOBS}/resume": r"ftctl resume plato-\w+ -n finetune",
    f"{JOBS}/retry": r"ftctl retry plato-\w+ -n finetune",
    f"{MODEL}/deploy": PROMOTE,
    f"{MODEL}/rollback": ROLLBACK,
    f"{MODEL}/serve": r"ftctl serve plato-v\d -n finetune",
    f"{MODEL}/evaluate": r"ftctl evaluate plato-v\d -n finetune --metric",
    "/model-comparison/deploy": PROMOTE,
    "/model-comparison/rollback": ROLLBACK,
    "/model-comparison/tests/{test_id}/cancel": rf"ftctl cancel test/{TEST} -n finetune",
    "/cost/trainings/{namespace}/{name}/budget": r"curl -X PUT .*/budget",
    "/fine-tuning/datasets": r"ftctl export \./dataset",
    "/fine-tuning/datasets/{dataset_id}/delete": r"curl -X DELETE .*/v1/fine-tuning/datasets/",
    "/fine-tuning/new": SUBMIT,
    "/wizard/train": SUBMIT,
    "/wizard/compare/{version_id}": SUBMIT,
    "/model-comparison/tests": SUBMIT,
    "/batches": SUBMIT,
    "/batches/{batch_id}/suspend": r"ftctl suspend batch/",
    "/batches/{batch_id}/resume": r"ftctl resume batch/",
    "/batches/{batch_id}/cancel": r"ftctl cancel batch/",
    "/batches/{batch_id}/delete": r"kubectl delete batchinference ",
    f"{VOTE}/pair": r"ftctl vote ",
    f"{VOTE}/cast": r"ftctl vote ",
    f"{VOTE}/name": r"ftctl vote .*--evaluator",
}
"""What a person can do, and what does the same."""
NO_ACTIONS = {
    "/login": "of a browser alone",
    "/logout": "of a browser alone",
    "/fine-tuning/new/outlook": "looks ahead",
    "/fine-tuning/datasets/count": "counts",
    "/fine-tuning/datasets/commands": "shows the commands",
    "/wizard/data/count": "counts",
    "/wizard/data/commands": "shows the commands",
    "/wizard/train/outlook": "looks ahead",
    "/batches/preview": "looks ahead",
    "/model-comparison/tests/preview": "looks ahead",
}
IN_A_PART: dict[str, tuple[str, dict[str, str]]] = {
    "/fine-tuning/new": ("/fine-tuning/new/outlook", TRAINED),
    "/fine-tuning/datasets": ("/fine-tuning/datasets/commands", {}),
    "/wizard/train": ("/wizard/train/outlook", TRAINED),
    "/wizard/compare/{version_id}": ("/model-comparison/tests/preview", GOOD_FORMS["/model-comparison/tests"]),
    "/model-comparison/tests": ("/model-comparison/tests/preview", GOOD_FORMS["/model-comparison/tests"]),
    "/batches": ("/batches/preview", GOOD_FORMS["/batches"]),
}
"""What follows a form is asked for as the form is."""
VERSION = f"{NAMESPACE}.plato-v2"
TESTED = f"/model-comparison/tests/{NAMESPACE}.{TEST}"
PAGES: dict[str, set[str]] = {
    "/fine-tuning": {f"{JOBS}/cancel", f"{JOBS}/suspend"},
    f"/fine-tuning/jobs/{NAMESPACE}/plato-train": {f"{JOBS}/cancel", f"{JOBS}/suspend"},
    f"/fine-tuning/jobs/{NAMESPACE}/plato-rest": {f"{JOBS}/cancel", f"{JOBS}/resume"},
    f"/fine-tuning/jobs/{NAMESPACE}/plato-done": {f"{JOBS}/retry"},
    f"/fine-tuning/models/{NAMESPACE}/plato-v2": {f"{MODEL}/deploy", f"{MODEL}/evaluate"},
    f"/fine-tuning/models/{NAMESPACE}/plato-v1": {f"{MODEL}/rollback", f"{MODEL}/evaluate"},
    f"/fine-tuning/models/{NAMESPACE}/plato-v4": {f"{MODEL}/serve"},
    "/fine-tuning/new?base_model=Qwen/Qwen3-0.6B": {"/fine-tuning/new"},
    "/fine-tuning/datasets": {"/fine-tuning/datasets"},
    "/fine-tuning/datasets/{dataset_id}": {"/fine-tuning/datasets/{dataset_id}/delete"},
    "/cost": {"/cost/trainings/{namespace}/{name}/budget"},
    "/cost/trainings": {"/cost/trainings/{namespace}/{name}/budget"},
    TESTED: {"/model-comparison/tests/{test_id}/cancel", "/model-comparison/deploy"},
    f"{TESTED}/vote": {f"{VOTE}/pair"},
    "/model-comparison/tests/new": {"/model-comparison/tests"},
    f"/wizard/training/{NAMESPACE}.plato-train": {f"{JOBS}/cancel", f"{JOBS}/suspend"},
    f"/wizard/compare/{VERSION}": {"/model-comparison/tests/{test_id}/cancel", "/model-comparison/deploy"},
    f"/wizard/compare/{NAMESPACE}.plato-v1": {"/wizard/compare/{version_id}", f"{MODEL}/evaluate"},
    f"/wizard/deploy/{VERSION}": {"/model-comparison/deploy"},
    f"/wizard/deploy/{NAMESPACE}.plato-v1": {"/model-comparison/rollback"},
    "/batches/new": {"/batches"},
    f"/batches/{NAMESPACE}.answers": {"/batches/{batch_id}/delete"},
    f"/batches/{NAMESPACE}.asking": {"/batches/{batch_id}/suspend", "/batches/{batch_id}/cancel"},
    f"/batches/{NAMESPACE}.resting": {"/batches/{batch_id}/resume", "/batches/{batch_id}/cancel"},
    "/wizard/train?base_model=Qwen/Qwen3-0.6B&model=plato": {"/wizard/train"},
}
"""Where it can be done, at least."""


def test_every_form_is_an_action_or_says_why_not() -> None:
    declared = {place.path for place in places(page_document()) if place.kind == "form"}
    assert set(ACTIONS) | set(NO_ACTIONS) == declared | set(FORMS) | BUTTONS
    assert not set(ACTIONS) & set(NO_ACTIONS)


@pytest.mark.parametrize("path", PAGES)
async def test_what_a_page_does_is_said_there(editor: Browser, path: str) -> None:
    page, actions = await opened(editor, path)
    assert PAGES[path] <= actions
    for action in sorted(actions - set(NO_ACTIONS)):
        shown = commands_of(page + await part_of(editor, action))
        assert any(re.match(ACTIONS[action], line) for line in shown), f"{path} has no command of {action}: {shown}"
        for line in shown:
            obeyed(line)


async def opened(editor: Browser, path: str) -> tuple[str, set[str]]:
    """A page of a cluster that has something of everything, and the actions that it offers."""
    experiment_sights.fill(editor.rest.cluster)
    await experiment_sights.vote(editor.rest.services.engine)
    if path.startswith("/cost"):
        await prices.fill(editor.rest)
    put_batches(editor)
    editor.rest.cluster.put("modelversions", merged(sights.version(4, "Ready"), {"spec": {"serving": None}}))
    object.__setattr__(editor.rest.services, "arms", Philosophers())
    if "{dataset_id}" in path:
        made = await editor.post("/fine-tuning/datasets")
        path = made.headers["location"]
    page = await editor.page(path)
    found = re.findall(r'<(?:form[^>]* method="post" |button[^>]* form)action="([^"]+)"', page)
    return page, {pattern_of(action) for action in found}


async def part_of(editor: Browser, action: str) -> str:
    """What follows the form of this action, if anything does."""
    if action not in IN_A_PART:
        return ""
    part = await editor.post(*IN_A_PART[action])
    assert part.status_code == 200, part.text
    return part.text


def put_batches(editor: Browser) -> None:
    """One that runs and one that is suspended, beside the one that has ended."""
    ended = experiment_sights.batch()
    for name, phase in (("asking", "Running"), ("resting", "Suspended")):
        spec = ended["spec"] | {"suspend": phase == "Suspended"}
        own = {"metadata": ended["metadata"] | {"name": name, "uid": f"uid-of-{name}"}, "spec": spec}
        editor.rest.cluster.put("batchinferences", ended | own | {"status": {"phase": phase}})


def pattern_of(action: str) -> str:
    """Of a path, the route that it is of; the one with fewest holes where there are several."""
    known = sorted((*ACTIONS, *NO_ACTIONS), key=lambda route: route.count("{"))
    return next(route for route in known if re.fullmatch(re.sub(r"{\w+}", "[^/]+", route), unescape(action)))


def commands_of(page: str) -> list[str]:
    return [line for block in blocks_of(page) for line in block.splitlines() if line.startswith(TOOLS)]


def blocks_of(page: str) -> list[str]:
    """What it has to copy."""
    return [unescape(block) for block in re.findall(r"<code>(.*?)</code></pre>", page, re.DOTALL)]
