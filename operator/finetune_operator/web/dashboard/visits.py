"""One request for a page: who asks, by the cookie that the log-in has set, and what a page needs to answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse

from finetune_operator.web.acting import Acting
from finetune_operator.web.auth import ANYBODY, Caller, caller_of
from finetune_operator.web.dashboard.policy import PAGE_HEADERS
from finetune_operator.web.dashboard.templating import TEMPLATES
from finetune_operator.web.services import Services, ServicesOf

COOKIE = "finetune_session"
SEE_OTHER = 303


class NavEntry(NamedTuple):
    """A link at the top of every page; lower places come first."""

    title: str
    path: str
    place: int


@dataclass(frozen=True)
class Visit:
    """What a page works with."""

    request: Request
    services: Services
    caller: Caller

    @cached_property
    def acting(self) -> Acting:
        return Acting(self.services, self.caller)

    def render(self, template: str, http_status: int = 200, /, **context: Any) -> HTMLResponse:
        """A page or a fragment."""
        return rendered(self.request, self.services, self.caller, template, http_status, **context)

    async def form(self) -> Mapping[str, Any]:
        """What the browser sent, a text by each name."""
        return dict(await self.request.form())

    def go(self, path: str) -> RedirectResponse:
        """After something was changed, so that loading the page again changes nothing more."""
        return RedirectResponse(path, SEE_OTHER)


async def _visit(request: Request, services: ServicesOf) -> Visit:
    """Raises a 401 problem, which the router answers with the log-in page."""
    return Visit(request, services, await caller_of(services, shown_token(request)))


VisitOf = Annotated[Visit, Depends(_visit)]


def shown_token(request: Request) -> str | None:
    """As a header has it: of the cookie, or of a proxy that logs people in."""
    kept = request.cookies.get(COOKIE)
    return f"Bearer {kept}" if kept else request.headers.get("authorization")


def is_fragment(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("hx-request") == "true"


def rendered(
    request: Request,
    services: Services,
    caller: Caller | None,
    template: str,
    http_status: int = 200,
    /,
    **context: Any,
) -> HTMLResponse:
    """With what the layout needs; `caller` is None where nobody is logged in."""
    navigation: tuple[NavEntry, ...] = request.app.state.navigation
    known = {
        "caller": caller,
        "is_anybody": caller is not None and caller.name == ANYBODY,
        "is_open": services.settings.api_token is None,
        "issuer_name": services.oidc.name if services.oidc else None,
        "navigation": navigation,
        "path": request.url.path,
        "query_text": request.url.query,
        "served_namespaces": services.settings.namespaces,
        "now": services.now(),
    }
    text = TEMPLATES.get_template(template).render(known | context)
    return HTMLResponse(text, http_status, headers=dict(PAGE_HEADERS))
