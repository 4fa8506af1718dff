"""`submit` and all other commands that make a resource: judged here first, then made in the caller's name."""

from collections.abc import Callable, Sequence
from random import SystemRandom
from typing import Any

from finetune_operator.cli.connection import connected
from finetune_operator.cli.documents import Document, files_of, findings, read_documents
from finetune_operator.cli.failures import usage
from finetune_operator.cli.kinds import KINDS, Kind
from finetune_operator.cli.options import Cluster, DryRun, MadeOutput
from finetune_operator.cli.printing import hint, note, print_data, print_line
from finetune_operator.cli.reading import listed, slim

Object = dict[str, Any]
BY_KIND = {kind.kind: kind for kind in KINDS}


def suffix() -> str:
    """Six hexadecimal digits, for the name of what its maker gave none."""
    return f"{SystemRandom().getrandbits(24):06x}"


async def submit_files(cluster: Cluster, files: Sequence[str], dry_run: DryRun, form: MadeOutput) -> None:
    """All of our kinds in them, or none of them where one is wrong. Raises `Failed`."""
    documents = [document for file in files_of(files) for document in read_documents(file)]
    ours = [document for document in documents if document.is_ours]
    if not ours:
        raise usage(f"none of our kinds in {', '.join(files)}: other resources go by `kubectl apply -f`")
    _judge(ours)
    if len(ours) < len(documents):
        note(f"{len(documents) - len(ours)} of other kinds are left to `kubectl apply -f`")
    await submit(cluster, lambda _: [document.body for document in ours], dry_run, form)


async def submit(cluster: Cluster, made_in: Callable[[str], list[Object]], dry_run: DryRun, form: MadeOutput) -> None:
    """What `made_in` makes for a namespace. Raises `Failed`."""
    if dry_run is DryRun.CLIENT:
        bodies = made_in(cluster.namespace or "default")
        _judge([Document("the flags", body, {}) for body in bodies])
        _show(bodies, form, "valid, not made (dry run without the cluster)")
        return
    async with connected(cluster) as connection:
        bodies = made_in(connection.namespace)
        _judge([Document("the flags", body, {}) for body in bodies])
        for body in bodies:
            there = body["metadata"].get("namespace") or connection.namespace
            if cluster.namespace and there != cluster.namespace:
                raise usage(
                    f"{body['metadata']['name']} says namespace {there}, and -n {cluster.namespace}: remove one"
                )
        server = dry_run is DryRun.SERVER
        if len(bodies) > 1 and not server:
            # All or none, as far as that can be known before.
            for body in bodies:
                await connection.create(BY_KIND[body["kind"]].plural, body, dry_run=True)
        made = [await connection.create(BY_KIND[body["kind"]].plural, body, dry_run=server) for body in bodies]
    _show(made, form, "taken by the API server, not made (dry run)" if server else "made")
    if not server and form is MadeOutput.TEXT:
        for body in made:
            if body["kind"] == "FineTuneJob":
                name = body["metadata"]["name"]
                hint(f"Follow it: ftctl watch, ftctl logs -f {name}, ftctl status {name} --timeout 2h")
            if body["kind"] == "BatchInference":
                name = body["metadata"]["name"]
                hint(f"Follow it: ftctl status batch/{name} --timeout 2h; what is answered: ftctl answers {name}")


def _judge(documents: Sequence[Document]) -> None:
    told = [
        f"{finding.file}:{finding.line}: {finding.path}: {finding.message}"
        if document.lines
        else f"{finding.path}: {finding.message}"
        for document in documents
        for finding in findings(document)
    ]
    if told:
        raise usage("\n".join(told))


def _show(bodies: Sequence[Object], form: MadeOutput, what: str) -> None:
    match form:
        case MadeOutput.JSON | MadeOutput.YAML:
            print_data(slim(bodies[0]) if len(bodies) == 1 else listed(bodies), form)
        case _:
            for body in bodies:
                told = "" if form is MadeOutput.NAME else f" {what}"
                print_line(f"{_kind(body).word}/{body['metadata']['name']}{told}")


def _kind(body: Object) -> Kind:
    return BY_KIND[body["kind"]]
