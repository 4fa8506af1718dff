"""Pages for people, rendered at the server: faces over the same functions as REST, never a second way of doing a thing.

How to add a page: a module with

    router = page_router()

    @router.get("/my-page")
    async def my_page(visit: VisitOf) -> HTMLResponse:
        return visit.render("my_page.html", things=await some_function_of_rest(visit.acting))

    PAGE = Page(router, NavEntry("My page", "/my-page", 50))

and its name in `site.PAGES`. What the module may count on:

- `VisitOf` (visits.py) is the request, the services and the caller, by the cookie of the log-in; without one it answers
  with the log-in page. `visit.acting` is the caller's view of the cluster, so that RBAC stays the one truth.
- Problems that are raised become pages, or fragments where htmx asks (routing.py). State changes are POSTs, which only
  pages of our own origin may send (the router checks), and end with `visit.go(path)`.
- A template extends `layout.html` and imports `macros.html`: figures, badges, tables, bars, fields, charts, code. No
  inline script and no inline style: the policy forbids both. Numbers go through the filters of `templating.py`, which
  show what is unknown as a dash and never as 0.
- Live pages: `data-live-kinds="finetunejobs"` on `<main>` (block `live_kinds`) opens one stream; an element with
  `data-live="finetunejobs"`, an id of its own, `hx-get` and `hx-trigger="live"` is fetched anew when it changes
  (live.py, static/live.js). `data-live-id="<namespace>.<name>"` limits that to one object.
- `form[data-kept]` has what was typed outlast a reload (static/kept_forms.js).
- `data-chart="<url>"` draws what that url answers with (static/charts.js).
"""
