"""`dashboard`: the pages at an address of this machine, as long as the command runs."""

import asyncio
import webbrowser

from finetune_operator.cli.api_access import service_of
from finetune_operator.cli.connection import connected
from finetune_operator.cli.forwarding import forwarded
from finetune_operator.cli.options import Api, Cluster
from finetune_operator.cli.printing import hint, print_line

PAGE = "/fine-tuning"


async def dashboard(cluster: Cluster, api: Api, *, port: int, open_browser: bool) -> None:
    """Until it is interrupted. Raises `Failed`."""
    if api.server:
        _show(api.server.rstrip("/") + PAGE, open_browser=open_browser)
        return
    async with connected(cluster) as connection:
        service = await service_of(connection, api)
        async with forwarded(connection, service, port) as url:
            _show(url + PAGE, open_browser=open_browser)
            hint("To log in: kubectl create token <service account>. Ctrl-C ends the forwarding.")
            await asyncio.Event().wait()


def _show(url: str, *, open_browser: bool) -> None:
    print_line(url)
    if open_browser and not webbrowser.open(url):
        hint("No browser could be opened: open the address yourself.")
