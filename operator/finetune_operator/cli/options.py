"""Options that many commands share, each group as one value; and the one place where errors become exit codes."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ParamSpec, get_type_hints

import typer

from finetune_operator.cli.failures import ExitCode, Failed

CLUSTER_PANEL = "Cluster"
API_PANEL = "Reaching the api"

P = ParamSpec("P")


class Output(StrEnum):
    """How something is printed."""

    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"
    NAME = "name"


class Format(StrEnum):
    """How an answer that is no list of resources is printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


class MadeOutput(StrEnum):
    """How something that was made is printed."""

    TEXT = "text"
    NAME = "name"
    YAML = "yaml"
    JSON = "json"


class DryRun(StrEnum):
    """How far a submission goes."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True)
class Cluster:
    """Which API server, as whom, and where in it."""

    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Default: that of the context.", rich_help_panel=CLUSTER_PANEL),
    ] = None
    context: Annotated[
        str | None, typer.Option("--context", help="Of the kubeconfig.", rich_help_panel=CLUSTER_PANEL)
    ] = None
    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", help="Default: KUBECONFIG, ~/.kube/config.", rich_help_panel=CLUSTER_PANEL),
    ] = None


@dataclass(frozen=True)
class Api:
    """How the api is reached: at an address, or through a port-forward to its Service."""

    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            envvar="FTCTL_SERVER",
            help="The api's URL; else a port is forwarded to it.",
            rich_help_panel=API_PANEL,
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="FTCTL_TOKEN",
            help="Better in the environment. Default: the kubeconfig's.",
            rich_help_panel=API_PANEL,
            show_envvar=True,
        ),
    ] = None
    service: Annotated[
        str | None,
        typer.Option(
            "--api",
            envvar="FTCTL_API",
            metavar="NAMESPACE/SERVICE",
            help="The api's Service; else it is looked for.",
            rich_help_panel=API_PANEL,
        ),
    ] = None
    service_account: Annotated[
        str | None,
        typer.Option(
            "--service-account",
            help="Speak as this ServiceAccount: for kubeconfigs with certificates, which the api can't see.",
            rich_help_panel=API_PANEL,
        ),
    ] = None


Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print it.")]
FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to print it.")]
MadeOption = Annotated[MadeOutput, typer.Option("--output", "-o", help="How to print what was made.")]
DryRunOption = Annotated[
    DryRun, typer.Option("--dry-run", help="client: judge and print it; server: have the API server judge it, too.")
]
MethodOption = Annotated[str | None, typer.Option("--method", help="SFT or DPO.")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="Passes over the dataset.")]
PhilosopherOption = Annotated[str | None, typer.Option("--philosopher", help="Only judgements of this person.")]
MinExamplesOption = Annotated[int | None, typer.Option("--min-examples", help="Refuse to train on fewer.")]
MinRatingDifferenceOption = Annotated[
    int | None, typer.Option("--min-rating-difference", min=1, max=4, help="Points between the answers of a pair.")
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="volume://CLAIM/PATH, s3://BUCKET/KEY, or ID/FILE of what the api keeps. Default: ratings."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def command(function: Callable[P, Coroutine[Any, Any, None] | None]) -> Callable[..., None]:
    """As typer takes it: groups of options are spread out, coroutines run, and errors become words and exit codes."""
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    groups = {name: hints[name] for name in signature.parameters if is_dataclass(hints[name])}

    def run(**given: Any) -> None:
        arguments = dict(given)
        for name, group in groups.items():
            arguments[name] = group(**{each.name: arguments.pop(each.name) for each in fields(group)})
        try:
            result = function(**arguments)  # type: ignore[call-arg]
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except Failed as failed:
            _say(str(failed))
            raise typer.Exit(failed.code) from None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    plain = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name not in groups
    ]
    spread = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=get_type_hints(group, include_extras=True)[each.name],
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
        )
        for group in groups.values()
        for each in fields(group)
    ]
    parameters = [*plain, *spread]
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _say(message: str) -> None:
    from finetune_operator.cli.printing import errors

    errors().print(f"[bold red]ftctl:[/] {_escaped(message)}", soft_wrap=True, highlight=False)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
