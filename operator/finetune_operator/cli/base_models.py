"""`base-models`: the api's catalogue of models to begin with."""

from finetune_operator.cli.api_access import api_at
from finetune_operator.cli.options import Api, Cluster, Format
from finetune_operator.cli.printing import output, print_data

BASE_MODELS_PATH = "/v1/fine-tuning/base-models"


async def base_models(cluster: Cluster, api: Api, form: Format) -> None:
    """Raises `Failed`."""
    from finetune_operator.cli.printing import Column, table

    async with api_at(cluster, api) as reached:
        answer = await reached.client.ask("GET", BASE_MODELS_PATH)
    if form is not Format.TABLE:
        print_data(answer, form)
        return
    rows = [
        [
            entry["id"],
            f"{entry['parameters'] / 1e9:.2f} B",
            str(entry["context_tokens"]),
            entry["vertical"],
            f"{entry['licence']}{', gated' if entry['is_gated'] else ''}",
            entry["recommended_for"] or "",
        ]
        for entry in answer["base_models"]
    ]
    columns = [
        Column("ID"), Column("SIZE", 1, right=True), Column("CONTEXT", 3, right=True), Column("VERTICAL", 2),
        Column("LICENCE", 1), Column("RECOMMENDED FOR", 2),
    ]  # fmt: skip
    output().print(table(columns, rows, output().width))
