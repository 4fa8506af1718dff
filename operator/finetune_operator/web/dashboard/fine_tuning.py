"""Page: from ratings to trained models."""

from starlette.responses import HTMLResponse

from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import NavEntry, VisitOf

PATH = "/fine-tuning"

router = page_router(PATH)


@router.get("")
async def fine_tuning_page(visit: VisitOf) -> HTMLResponse:
    """What there is, and what goes on."""
    return visit.render("fine_tuning.html")


PAGE = Page(router, NavEntry("Fine-tuning", PATH, 10))
