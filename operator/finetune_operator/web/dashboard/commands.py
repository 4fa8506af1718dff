"""The same things from a terminal, so that each page says how. Pure."""

import json
from typing import Any, NamedTuple

from finetune_operator.web.ids import ObjectId


class Command(NamedTuple):
    """What it does, and the lines to type."""

    purpose: str
    lines: str


def job_commands(found: ObjectId, *, is_finished: bool, is_suspended: bool) -> tuple[Command, ...]:
    where = f"-n {found.namespace}"
    looking = (
        Command(
            "Look at it", f"kubectl get finetunejob {found.name} {where} -o yaml\nftctl status job/{found.name} {where}"
        ),
        Command(
            "Read its log",
            f"kubectl logs {where} -l finetune.dev/job={found.name} --all-containers --tail=200\n"
            f"ftctl logs {found.name} {where} -f",
        ),
    )
    if is_finished:
        return looking
    verb = "resume" if is_suspended else "suspend"
    return (
        *looking,
        _patch(verb.capitalize(), verb, found, {"suspend": not is_suspended}),
        _patch("Cancel", "cancel", found, {"cancel": True}),
    )


def version_commands(found: ObjectId) -> tuple[Command, ...]:
    where = f"-n {found.namespace}"
    patch = json.dumps({"spec": {"state": "Deployed"}})
    return (
        Command("Look at it", f"kubectl get modelversion {found.name} {where} -o yaml"),
        Command(
            "Deploy it",
            f"kubectl patch modelversion {found.name} {where} --type merge -p '{patch}'\n"
            f"ftctl promote {found.name} {where}",
        ),
        Command("Go back to the one before it", f"ftctl rollback {found.name} {where}"),
    )


def submit_command(file: str) -> str:
    """Of an object in a file."""
    return f"kubectl apply -f {file}\nftctl submit -f {file}"


def _patch(purpose: str, verb: str, found: ObjectId, spec: dict[str, Any]) -> Command:
    patch = json.dumps({"spec": spec})
    where = f"-n {found.namespace}"
    lines = (
        f"kubectl patch finetunejob {found.name} {where} --type merge -p '{patch}'\nftctl {verb} {found.name} {where}"
    )
    return Command(purpose, lines)
