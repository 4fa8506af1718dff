"""The preflight as the operator writes it is kept whole by the API server, and bounded."""

from typing import Any

import pytest

from finetune_operator.kube.errors import Rejected
from finetune_operator.resources.preflight import ComparedStatus, EstimateStatus, PreflightStatus, TokensStatus
from tests.cluster.control_plane import ControlPlane
from tests.cluster.samples import fine_tune_job

ESTIMATE = EstimateStatus(
    device="NVIDIA-L4", fits="Unlikely", time="12m to 46m", min_seconds=720, max_seconds=2760, cost="0.12 to 0.46 EUR",
    min_cost="0.12", max_cost="0.46", currency="EUR", message="m" * 256,
)  # fmt: skip
TOKENS = TokensStatus(
    method="Tokenizer", sampled_rows=2000, p50=200, p95=900, max=4100, over_length_percent="1.2", trained=2_000_000
)
EVERYTHING = PreflightStatus(
    parameters_billion="8.03", memory_gib="12.3", gpu_memory_gib=24, steps=300, tokens=TOKENS, estimate=ESTIMATE,
    compared=(ComparedStatus(device="H100", fits="Likely", time="1m35s to 9m51s", cost="0.10 to 0.64 EUR"),) * 8,
    warnings=("w" * 4096,) * 8,
)  # fmt: skip


async def test_all_that_the_operator_writes_is_kept(control_plane: ControlPlane, bare_namespace: str) -> None:
    await control_plane.client.create("finetunejobs", bare_namespace, fine_tune_job("whole"))
    status = {"preflight": EVERYTHING.to_dict()}
    written = await control_plane.client.merge_patch(
        "finetunejobs", bare_namespace, "whole", {"status": status}, "status"
    )
    assert written["status"] == status


OUTSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "another word than three": ({"estimate": {"device": "L4", "fits": "Maybe"}}, "status.preflight.estimate.fits"),
    "a way to count that is none": (
        {"tokens": TOKENS.to_dict() | {"method": "Words"}},
        "status.preflight.tokens.method",
    ),
    "too many types": ({"compared": [{"device": "L4"}] * 9}, "status.preflight.compared"),
    "too many warnings": ({"warnings": ["w"] * 9}, "status.preflight.warnings"),
    "too long a warning": ({"warnings": ["w" * 4097]}, "status.preflight.warnings"),
    "too long a text": ({"estimate": {"device": "d" * 257}}, "status.preflight.estimate.device"),
}


@pytest.mark.parametrize("title", OUTSIDE)
async def test_what_is_outside_its_bounds_is_refused(
    control_plane: ControlPlane, bare_namespace: str, title: str
) -> None:
    preflight, field = OUTSIDE[title]
    name = f"bounded-{list(OUTSIDE).index(title)}"
    await control_plane.client.create("finetunejobs", bare_namespace, fine_tune_job(name))
    body = {"status": {"preflight": preflight}}
    with pytest.raises(Rejected, match="is invalid") as refusal:
        await control_plane.client.merge_patch("finetunejobs", bare_namespace, name, body, "status")
    assert field in str(refusal.value)
