"""`retry`: a new training that does the same as an earlier one."""

from finetune_operator.cli.changing import job_name
from finetune_operator.cli.connection import connected
from finetune_operator.cli.job_making import manifest
from finetune_operator.cli.kinds import JOB
from finetune_operator.cli.options import Cluster, DryRun, MadeOutput
from finetune_operator.cli.submitting import submit, suffix
from finetune_operator.core.job_changes import repeated_spec


async def retry(cluster: Cluster, given: str, name: str | None, form: MadeOutput) -> None:
    """Under a name of its own, whether or not the earlier one has ended. Raises `Failed`."""
    async with connected(cluster) as connection:
        spec = repeated_spec((await connection.get(JOB.plural, job_name(given)))["spec"])
    chosen = name or f"{spec['model']}-{suffix()}"
    await submit(cluster, lambda namespace: [manifest(JOB.kind, namespace, chosen, spec)], DryRun.NONE, form)
