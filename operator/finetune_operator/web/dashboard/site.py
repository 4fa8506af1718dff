"""All pages of the dashboard, and the links at the top of each."""

from http import HTTPStatus

from fastapi import FastAPI
from starlette.responses import RedirectResponse

from finetune_operator.web.dashboard import (
    ab_test_pages,
    api_key_pages,
    assets,
    batches,
    comparison_pages,
    cost_pages,
    dataset_pages,
    fine_tuning,
    job_pages,
    live,
    login,
    model_pages,
    new_job,
    oidc_login,
    voting,
    wizard,
)
from finetune_operator.web.dashboard.routing import unrouted
from finetune_operator.web.dashboard.visits import SEE_OTHER

PAGES = (
    login.PAGE,
    oidc_login.PAGE,
    live.PAGE,
    fine_tuning.PAGE,
    job_pages.PAGE,
    new_job.PAGE,
    dataset_pages.PAGE,
    model_pages.PAGE,
    comparison_pages.PAGE,
    ab_test_pages.PAGE,
    voting.PAGE,
    wizard.PAGE,
    cost_pages.PAGE,
    batches.PAGE,
    api_key_pages.PAGE,
)
HOME = "/fine-tuning"


def install(app: FastAPI) -> None:
    """Add the pages to the api's application."""
    entries = [page.navigation for page in PAGES if page.navigation]
    app.state.navigation = tuple(sorted(entries, key=lambda entry: entry.place))
    app.include_router(assets.router)
    for page in PAGES:
        app.include_router(page.router)
    app.add_api_route("/", _home, include_in_schema=False)
    app.add_exception_handler(HTTPStatus.NOT_FOUND, unrouted)


async def _home() -> RedirectResponse:
    return RedirectResponse(HOME, SEE_OTHER)
