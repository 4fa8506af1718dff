"""`cancel`, `suspend`, `resume`, `promote`, `rollback`: fields of the spec, set in the caller's name."""

import sys
from collections.abc import Sequence
from typing import Any

import typer

from finetune_operator.cli.connection import Connection, connected
from finetune_operator.cli.failures import Failed, refused, usage
from finetune_operator.cli.kinds import BATCH, JOB, TEST, VERSION, Kind, kind_named, named
from finetune_operator.cli.options import Cluster
from finetune_operator.cli.printing import hint, print_line
from finetune_operator.core.routing import active_version, rival_pins
from finetune_operator.core.version_changes import PIN, UNPIN, previous_version
from finetune_operator.resources.abtest import Verdict
from finetune_operator.resources.known_part import known_part
from finetune_operator.resources.modelversion import ModelVersion

ENDED = frozenset({"Succeeded", "Failed", "Cancelled", *Verdict})

Object = dict[str, Any]


def confirm(question: str, *, yes: bool) -> None:
    """Raises `Failed` where nobody can be asked, and typer's own end where the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise usage(f"{question} Nobody can be asked here: pass --yes")
    typer.confirm(question, abort=True, err=True)


async def cancel(cluster: Cluster, names: Sequence[str], *, yes: bool) -> None:
    """Jobs, tests and batches, for good. Asking again for what is being cancelled changes nothing."""
    chosen = [_cancellable(given) for given in names]
    async with connected(cluster) as connection:
        found = [(kind, await connection.get(kind.plural, name)) for kind, name in chosen]
        running = [(kind, body) for kind, body in found if not body["spec"].get("cancel")]
        for kind, body in running:
            _require_unfinished(kind, body, "cancelled")
        if running:
            told = ", ".join(f"{kind.word}/{body['metadata']['name']}" for kind, body in running)
            confirm(f"End {told} in {connection.namespace} for good?", yes=yes)
        for kind, body in found:
            if (kind, body) in running:
                await connection.change(kind.plural, body, {"cancel": True})
            print_line(f"{kind.word}/{body['metadata']['name']} is being cancelled")


async def suspend(cluster: Cluster, names: Sequence[str], *, suspended: bool) -> None:
    """Free the resources of jobs and batches, or go on from the last checkpoint or row."""
    chosen = [_suspendable(given) for given in names]
    async with connected(cluster) as connection:
        for kind, name in chosen:
            body = await connection.get(kind.plural, name)
            _require_unfinished(kind, body, "suspended" if suspended else "resumed")
            if body["spec"].get("cancel"):
                raise Failed(f"{kind.word} {name} is being cancelled: submit a new one")
            if bool(body["spec"].get("suspend")) != suspended:
                await connection.change(kind.plural, body, {"suspend": suspended})
            print_line(f"{kind.word}/{name} is {'being suspended' if suspended else 'resumed'}")


async def serve(cluster: Cluster, name: str, *, notes: str | None, serving: Object) -> None:
    """Load it beside the others; it answers to its own name."""
    async with connected(cluster) as connection:
        body = await connection.get(VERSION.plural, version_name(name))
        spec = {"serving": serving} | ({"notes": notes} if notes is not None else {})
        await connection.change(VERSION.plural, body, spec)
        print_line(f"version/{body['metadata']['name']} is being served")
        hint(f"When it answers: ftctl status --for=condition=Ready version/{body['metadata']['name']}")


async def promote(cluster: Cluster, name: str, *, yes: bool, notes: str | None, serving: Object) -> None:
    """Serve it, and have the model's name stand for it as soon as it answers."""
    async with connected(cluster) as connection:
        body = await connection.get(VERSION.plural, version_name(name))
        family = await _family(connection, body["spec"]["model"])
        active = _active(family)
        now = f"{active.metadata.name} is live" if active else "none is live"
        if active is None or active.metadata.name != body["metadata"]["name"]:
            model = body["spec"]["model"]
            question = f"Have {model} in {connection.namespace} answered by {body['metadata']['name']} ({now})?"
            confirm(question, yes=yes)
        spec = dict(PIN)
        if serving:
            spec["serving"] = serving
        if notes is not None:
            spec["notes"] = notes
        await _pin(connection, body, family, spec)
    hint(f"Wait for it: ftctl status version/{body['metadata']['name']} --for Deployed --timeout 10m")


async def rollback(cluster: Cluster, name: str, to: str | None, *, yes: bool) -> None:
    """Of a model, or of the version that is live, to the one before it or to `to`."""
    name = name.partition("/")[2] or name
    async with connected(cluster) as connection:
        versions = await connection.list(VERSION.plural, connection.namespace)
        known = {body["metadata"]["name"]: body for body in versions}
        model = known[name]["spec"]["model"] if name in known else name
        family = {key: body for key, body in known.items() if body["spec"]["model"] == model}
        if not family:
            raise refused(f"there is no model or version {name} in namespace {connection.namespace}")
        active = _active(family)
        if active is None or name not in (model, active.metadata.name):
            now = f"{active.metadata.name} is" if active else "none is"
            raise Failed(f"{name} is not the live version of {model} ({now}): `ftctl promote` the one that you want")
        target = _target(family, active, to)
        confirm(f"Take {model} in {connection.namespace} back from {active.metadata.name} to {target}?", yes=yes)
        await _pin(connection, family[target], family, dict(PIN))


def _target(family: dict[str, Object], active: ModelVersion, to: str | None) -> str:
    if to is not None:
        if to not in family:
            raise refused(f"{active.spec.model} has no version {to}: there is {', '.join(sorted(family))}")
        return to
    previous = previous_version(active, _known(family))
    if previous is None:
        raise Failed(
            f"no version was live before {active.metadata.name}, or it is gone or failed: say which one with --to"
        )
    return previous.metadata.name


async def _pin(connection: Connection, body: Object, family: dict[str, Object], spec: Object) -> None:
    """The new pin comes first, so that the model's name never falls back meanwhile; then pins that could win go."""
    changed = await connection.change(VERSION.plural, body, spec)
    rivals = rival_pins(ModelVersion.parse(changed), _known(family))
    for rival in rivals:
        await connection.change(VERSION.plural, family[rival.metadata.name], UNPIN)
    print_line(f"version/{body['metadata']['name']} answers {body['spec']['model']} once it is loaded")


def _known(family: dict[str, Object]) -> list[ModelVersion]:
    """As far as they are understood: what a newer operator wrote of one must not keep people from another one."""
    return [known_part(ModelVersion, body)[0] for body in family.values()]


async def _family(connection: Connection, model: str) -> dict[str, Object]:
    versions = await connection.list(VERSION.plural, connection.namespace)
    return {body["metadata"]["name"]: body for body in versions if body["spec"]["model"] == model}


def _active(family: dict[str, Object]) -> ModelVersion | None:
    return active_version(_known(family))


def _require_unfinished(kind: Kind, body: Object, participle: str) -> None:
    if (state := kind.state(body)) in ENDED:
        name = body["metadata"]["name"]
        raise Failed(f"{kind.word} {name} has ended ({state}) and can't be {participle}: submit a new one")


def _cancellable(given: str) -> tuple[Kind, str]:
    kind, name = named(given)
    if kind not in (JOB, TEST, BATCH):
        raise usage(f"{given} can't be cancelled: name jobs, or tests and batches as test/NAME and batch/NAME")
    return kind, name


def _suspendable(given: str) -> tuple[Kind, str]:
    kind, name = named(given)
    if kind not in (JOB, BATCH):
        raise usage(f"{given} can't be suspended: name jobs, or batches as batch/NAME")
    return kind, name


def job_name(given: str) -> str:
    return _name_of(given, JOB.plural)


def batch_name(given: str) -> str:
    return _name_of(given, BATCH.plural)


def version_name(given: str) -> str:
    return _name_of(given, VERSION.plural)


def abtest_name(given: str) -> str:
    return _name_of(given, TEST.plural)


def _name_of(given: str, plural: str) -> str:
    """`job/plato-1` and `plato-1` are the same where only jobs are taken."""
    word, slash, name = given.partition("/")
    if not slash:
        return given
    if kind_named(word).plural != plural:
        raise usage(f"{given} is of another kind: name one of {plural}")
    return name
