"""`get`: resources as tables, as a tree, or for programs."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from finetune_operator.cli.connection import Connection, connected
from finetune_operator.cli.failures import ExitCode, Failed, usage
from finetune_operator.cli.family_tree import CHILD_SELECTOR, TREE_PLURALS, Snapshot, trees
from finetune_operator.cli.kinds import KINDS, Kind, columns_of, kind_named, named, rows_of
from finetune_operator.cli.options import Cluster, Output
from finetune_operator.cli.printing import hint, note, output, print_data, print_line, signs, table

Object = dict[str, Any]
OURS = frozenset(kind.plural for kind in KINDS)


async def get(
    cluster: Cluster,
    what: str | None,
    names: Sequence[str],
    form: Output,
    *,
    everywhere: bool,
    model: str | None = None,
    phase: str | None = None,
) -> None:
    """All as a tree, a kind, or some of a kind. Raises `Failed`."""
    kind: Kind | None = None
    if what and "/" in what:
        kind, name = named(what)
        names = (name, *names)
    elif what:
        kind = kind_named(what)
    if everywhere and names:
        raise usage("a name is in one namespace: leave out -A, and say which one with -n")
    async with connected(cluster) as connection:
        namespace = None if everywhere else connection.namespace
        if kind is None:
            await _get_all(connection, namespace, form)
            return
        if names:
            bodies = [await connection.get(kind.plural, name) for name in names]
        else:
            bodies = await connection.list(kind.plural, namespace)
            bodies = [body for body in bodies if _is_chosen(kind, body, model, phase)]
    show(kind, bodies, form, namespaced=everywhere, alone=len(names) == 1)
    if not bodies and form in (Output.TABLE, Output.WIDE):
        hint(f"No {kind.plural} in {namespace or 'any namespace'}.")


def show(kind: Kind, bodies: Sequence[Object], form: Output, *, namespaced: bool = False, alone: bool = False) -> None:
    match form:
        case Output.JSON | Output.YAML:
            print_data(bodies[0] if alone else listed(bodies), form)
        case Output.NAME:
            for body in bodies:
                print_line(f"{kind.word}/{body['metadata']['name']}")
        case _ if bodies:
            console, wide = output(), form is Output.WIDE
            rows = rows_of(kind, bodies, datetime.now(UTC), namespaced=namespaced, wide=wide)
            console.print(table(columns_of(kind, namespaced=namespaced, wide=wide), rows, console.width))


def listed(bodies: Sequence[Object]) -> Object:
    """As kubectl prints several."""
    return {"apiVersion": "v1", "kind": "List", "items": [slim(body) for body in bodies]}


def slim(body: Object) -> Object:
    """Without managed fields, which are three quarters of the text and for machines of the API server alone."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return body | {"metadata": metadata}


async def _get_all(connection: Connection, namespace: str | None, form: Output) -> None:
    snapshot = await read_all(connection, namespace)
    if form in (Output.JSON, Output.YAML):
        print_data(
            listed([body for plural in snapshot.objects if plural in OURS for body in snapshot.objects[plural]]), form
        )
        return
    if form is Output.NAME:
        for kind in KINDS:
            show(kind, snapshot.objects[kind.plural], form)
        return
    console = output()
    grown = trees(snapshot, datetime.now(UTC), signs=signs(console), namespaced=namespace is None)
    for tree in grown:
        console.print(tree)
    if not grown:
        hint(f"Nothing in {namespace or 'any namespace'} yet: `ftctl submit --help` says how to train.")
    for plural in sorted(snapshot.unreadable):
        note(f"{plural} are left out: you may not list them")


async def read_all(connection: Connection, namespace: str | None) -> Snapshot:
    """What the tree is made of. Who may read our kinds and no pods sees the tree without them. Raises `Failed`."""
    objects: dict[str, tuple[Object, ...]] = {}
    unreadable = set()
    for plural in TREE_PLURALS:
        ours = plural in OURS
        try:
            objects[plural] = tuple(await connection.list(plural, namespace, "" if ours else CHILD_SELECTOR))
        except Failed as failed:
            if ours or failed.code is not ExitCode.REFUSED:
                raise
            unreadable.add(plural)
    return Snapshot(objects, frozenset(unreadable))


def _is_chosen(kind: Kind, body: Object, model: str | None, phase: str | None) -> bool:
    spec = body["spec"]
    of_model = model is None or model in (spec.get("model"), spec.get("modelVersion"))
    return of_model and (phase is None or kind.state(body).lower() == phase.lower())
