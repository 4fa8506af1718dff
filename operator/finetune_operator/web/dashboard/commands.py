"""The same things from a terminal, so that each page says how. Pure."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlencode

from finetune_operator.core.decimals import decimal_text
from finetune_operator.core.version_changes import TEXT_METRICS, evaluation_fields
from finetune_operator.web.cost_views import TrainingCost
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_views import FINISHED, JobEntry


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
        return (*looking, Command("Train again", f"ftctl retry {found.name} {where}"))
    return (*looking, *going_commands(found, is_suspended=is_suspended))


def going_commands(found: ObjectId, *, is_suspended: bool) -> tuple[Command, ...]:
    """What a training that goes on can be told."""
    verb = "resume" if is_suspended else "suspend"
    return (
        _patch(verb.capitalize(), verb, found, {"suspend": not is_suspended}),
        _patch("Cancel", "cancel", found, {"cancel": True}),
    )


def first_active(jobs: Iterable[JobEntry]) -> tuple[JobEntry, ...]:
    """The first training that goes on, and the first that is suspended."""
    going = [each for each in jobs if each.status not in FINISHED and not each.cancelled]
    return tuple({each.suspended: each for each in reversed(going)}.values())


def active_commands(jobs: Iterable[JobEntry]) -> tuple[Command, ...]:
    return tuple(
        Command(f"{purpose} {job.name}", lines)
        for job in first_active(jobs)
        for purpose, lines in going_commands(ObjectId(job.namespace, job.name), is_suspended=job.suspended)
    )


def version_commands(found: ObjectId) -> tuple[Command, ...]:
    where = f"-n {found.namespace}"
    return (
        Command("Look at it", f"kubectl get modelversion {found.name} {where} -o yaml"),
        Command(
            "Deploy it",
            f"{_patched('modelversion', found, {'state': 'Deployed'})}\nftctl promote {found.name} {where}",
        ),
        Command("Go back to the one before it", f"ftctl rollback {found.name} {where}"),
        Command(
            "Serve it beside the one that answers",
            f"{_patched('modelversion', found, {'serving': {}})}\nftctl serve {found.name} {where}",
        ),
        measuring_command(found),
    )


def measuring_command(found: ObjectId) -> Command:
    asked = evaluation_fields(TEXT_METRICS, None, None)
    words = " ".join(f"--metric {metric}" for metric in asked["metrics"])
    return Command(
        "Measure it beside its base model",
        f"{_patched('modelversion', found, {'evaluation': asked})}\n"
        f"ftctl evaluate {found.name} -n {found.namespace} {words}",
    )


def batch_commands(found: ObjectId, *, is_finished: bool, is_suspended: bool) -> tuple[Command, ...]:
    """What follows its manifest as `batch.yaml`."""
    name, where = found.name, f"-n {found.namespace}"
    path = f"/v1/fine-tuning/batches/{found}"
    verb = "resume" if is_suspended else "suspend"
    changing = Command(
        verb.capitalize(),
        f"{_patched('batchinference', found, {'suspend': not is_suspended})}\nftctl {verb} batch/{name} {where}",
    )
    cancelling = Command(
        "Cancel", f"{_patched('batchinference', found, {'cancel': True})}\nftctl cancel batch/{name} {where}"
    )
    return (
        Command("Make it", submit_command("batch.yaml")),
        Command("Look at it", f"kubectl get batchinference {name} {where} -w\nftctl status batch/{name} {where}"),
        Command("Read the first answers", f"ftctl answers {name} {where}\n{curl(f'{path}/answers')}"),
        Command("Copy all files", f"ftctl answers {name} {where} --script {name}.sh\nsh {name}.sh"),
        Command("Read its log", f"ftctl logs batch/{name} {where} -f"),
        *(() if is_finished else (changing, cancelling)),
        Command("Delete it", f"kubectl delete batchinference {name} {where}\n{curl(path, None, 'DELETE')}"),
    )


def test_commands(found: ObjectId, candidate: str) -> tuple[Command, ...]:
    """Of a test that is in `abtest.yaml`; `candidate` is the name of its version."""
    where = f"-n {found.namespace}"
    return (
        Command("Make it", submit_command("abtest.yaml")),
        Command("Watch it", f"kubectl get abtest {found.name} {where} -w"),
        Command("Vote", f"ftctl vote {found.name} {where}"),
        Command("End the test", f"ftctl cancel test/{found.name} {where}"),
        Command(f"Promote {candidate}", f"ftctl promote {candidate} {where}"),
        Command("Roll back", f"ftctl rollback {candidate} {where}"),
    )


def dataset_commands(dataset: str, files: Iterable[str]) -> tuple[Command, ...]:
    path = f"/v1/fine-tuning/datasets/{dataset}"
    fetched = (curl(f"{path}/files/{file}").replace("curl", "curl -OJ", 1) for file in files)
    return (
        Command("Download it", "\n".join(fetched)),
        Command("Delete it", curl(path, None, "DELETE")),
    )


def submit_command(file: str) -> str:
    """Of an object in a file."""
    return f"kubectl apply -f {file}\nftctl submit -f {file}"


def _patch(purpose: str, verb: str, found: ObjectId, spec: dict[str, Any]) -> Command:
    lines = f"{_patched('finetunejob', found, spec)}\nftctl {verb} {found.name} -n {found.namespace}"
    return Command(purpose, lines)


def _patched(kind: str, found: ObjectId, spec: dict[str, Any]) -> str:
    patch = shlex.quote(json.dumps({"spec": spec}))
    return f"kubectl patch {kind} {found.name} -n {found.namespace} --type merge -p {patch}"


def curl(path: str, body: Mapping[str, Any] | None = None, method: str = "", /, **query: object) -> str:
    """A request of REST; what is None or empty in the query is left out."""
    said = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    words = ["curl"]
    if method:
        words += ["-X", method]
    words += ["-H", '"Authorization: Bearer $TOKEN"']
    if body is not None:
        words += ["-H", '"Content-Type: application/json"', "-d", shlex.quote(json.dumps(body))]
    return " ".join([*words, f'"$API{path}{f"?{said}" if said else ""}"'])


def namespace_flag(namespace: str | None, served: Sequence[str], everywhere: str = " -A") -> str:
    """Of a page that shows one namespace, the only one that is served, or all of them."""
    only = namespace or (served[0] if len(served) == 1 else None)
    return f" -n {only}" if only else everywhere


EXPORT_FLAGS = {
    "format": "--format", "philosopher": "--philosopher", "domain": "--domain", "task_type": "--task-type",
    "min_rating": "--min-rating", "limit": "--limit", "test_fraction": "--test-fraction",
    "min_examples": "--min-examples",
}  # fmt: skip
"""Those that `ftctl export` has; REST takes all members."""
FIRST_BUDGET = 10


def export_commands(said: Mapping[str, Any]) -> tuple[Command, ...]:
    """Of an export, by the members of its request that are not at their default."""
    lines = [*_ftctl_export("ftctl export ./dataset", said), curl("/v1/fine-tuning/datasets/export", said, "POST")]
    return (Command("Export what the form says", "\n".join(lines)),)


def count_commands(said: Mapping[str, Any]) -> tuple[Command, ...]:
    lines = [*_ftctl_export("ftctl export --count", said), curl("/v1/fine-tuning/datasets/statistics", said, "POST")]
    return (Command("Count these ratings", "\n".join(lines)),)


def dataset_list_commands(filters: Mapping[str, str]) -> tuple[Command, ...]:
    flags = "".join(f" {EXPORT_FLAGS[name]} {shlex.quote(value)}" for name, value in filters.items())
    lines = f"ftctl export --list{flags}\n{curl('/v1/fine-tuning/datasets', None, '', **filters)}"
    return (Command("List what was exported", lines),)


def _ftctl_export(command: str, said: Mapping[str, Any]) -> Iterable[str]:
    """Nothing where a member has no flag: a command that did something else would be worse than none."""
    given = dict(said)
    words = [] if given.pop("gold_star_only", True) else ["--all"]
    if given.keys() <= EXPORT_FLAGS.keys():
        words += [f"{EXPORT_FLAGS[name]} {shlex.quote(str(value))}" for name, value in given.items()]
        yield " ".join([command, *words])


def api_key_commands(namespace: str = "<namespace>", service_account: str = "<ServiceAccount>") -> tuple[Command, ...]:
    """Keys are the api's alone, so that neither kubectl nor ftctl knows them."""
    key = {"name": "nightly", "namespace": namespace, "service_account": service_account}
    return (
        Command("List keys", curl("/v1/api-keys")),
        Command("Make one", curl("/v1/api-keys", key, "POST")),
        Command("Revoke one", curl("/v1/api-keys/<id>", None, "DELETE")),
    )


def first_payable(jobs: Iterable[TrainingCost]) -> TrainingCost | None:
    """The first training that goes on, which a budget can still stop."""
    return next((each for each in jobs if each.finished_at is None and each.status not in FINISHED), None)


def budget_of(job: TrainingCost) -> dict[str, str]:
    """As its spec has it: the budget that it has, or 10 to begin with."""
    amount, currency = (job.budget.max_cost, job.budget.currency) if job.budget else (FIRST_BUDGET, job.currency)
    return {"maxCost": decimal_text(Decimal(str(amount))), "currency": currency or "USD"}


def budget_commands(jobs: Iterable[TrainingCost]) -> tuple[Command, ...]:
    job = first_payable(jobs)
    if job is None:
        return ()
    namespace, _, name = job.id.partition(".")
    budget = budget_of(job)
    said = {"max_cost": budget["maxCost"], "currency": budget["currency"]}
    lines = (
        _patched("finetunejob", ObjectId(namespace, name), {"budget": budget}),
        curl(f"/v1/fine-tuning/jobs/{job.id}/budget", said, "PUT"),
    )
    setting = Command(f"Set the budget of {name}", "\n".join(lines))
    if job.budget is None:
        return (setting,)
    lines = (
        _patched("finetunejob", ObjectId(namespace, name), {"budget": None}),
        curl(f"/v1/fine-tuning/jobs/{job.id}/budget", {"max_cost": None}, "PUT"),
    )
    return (setting, Command(f"Take the budget of {name} away", "\n".join(lines)))


def roi_commands(version: ObjectId, test: str, given: Mapping[str, float | None]) -> tuple[Command, ...]:
    """With what was changed from its measured value, by the names of REST."""
    lines = [curl("/v1/fine-tuning/costs/roi", version=version, test=test, **given)]
    if not test and given.keys() <= {"value_per_error_saved"}:
        value = given.get("value_per_error_saved")
        said = "" if value is None else f" --value-per-error {value}"
        lines.insert(0, f"ftctl cost --roi {version.name} -n {version.namespace}{said}")
    return (Command("The same from a terminal", "\n".join(lines)),)


def pair_commands(left: str, right: str, is_testable: bool) -> tuple[Command, ...]:
    """Of two versions by their ids, the left one of which may be `base`."""
    namespace, _, candidate = right.partition(".")
    measure = Command(f"Measure {candidate} and its base model anew", f"ftctl evaluate {candidate} -n {namespace}")
    if not is_testable:
        return (measure,)
    baseline = left.partition(".")[2] or left
    vote = f"ftctl setup-ab-test {candidate} --baseline {baseline} --prompt 'What is courage?' -n {namespace}"
    return (measure, Command("Let people vote on these two", vote))


def vote_commands(test: ObjectId, evaluator: str | None) -> tuple[Command, ...]:
    """`evaluator` is who votes where no Kubernetes token says so."""
    named = f" --evaluator {shlex.quote(evaluator)}" if evaluator else ""
    body = {"evaluator": evaluator} if evaluator else {}
    path = f"/v1/fine-tuning/ab-test/{test}"
    return (
        Command("Vote", f"ftctl vote {test.name} -n {test.namespace}{named}"),
        Command(
            "Vote by REST: ask for a pair, then judge it",
            curl(f"{path}/comparisons", body, "POST")
            + "\n"
            + curl(f"{path}/vote", {"comparison_id": "<of the pair>", "vote": "a"} | body, "POST"),
        ),
    )
