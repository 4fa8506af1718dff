"""What the chart says once it is installed: a first job that works, and what is better changed."""

import shutil
from pathlib import Path

import pytest
import yaml

from finetune_operator.resources.finetunejob import FineTuneJob
from tests.helm.conftest import CHART, NAMESPACE, PROFILES, Helm, named


def rendered_notes(helm: Helm, directory: Path, *options: str) -> str:
    """NOTES.txt as a user sees it: `helm template` leaves it out, so a copy of the chart shows it in a ConfigMap."""
    chart = Path(shutil.copytree(CHART, directory / "chart"))
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}\n'
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes, namespace: models}\n"
        'data: {notes: {{ include "notes" . | toJson }} }\n'
    )
    return str(named(helm.render(*options, chart=chart), "ConfigMap", "notes")["data"]["notes"])


@pytest.mark.parametrize("profile", PROFILES)
def test_notes_have_a_valid_first_job(helm: Helm, tmp_path: Path, profile: str) -> None:
    notes = rendered_notes(helm, tmp_path, *PROFILES[profile])
    body = yaml.safe_load(notes.split("<<'EOF'\n")[1].split("\nEOF\n")[0])
    body["metadata"]["uid"] = "uid"
    assert FineTuneJob.parse(body).spec.model == "plato"
    for command in (
        # Not the category `finetuning`: kubectl watches one kind at a time.
        "get finetunejobs -w",
        "create token ada --duration 8h",
        "port-forward service/finetune-gateway 8080:80",
        "port-forward service/finetune-api 8081:80",
        "get secret finetune-internal -o jsonpath='{.data.api-token}'",
    ):
        assert f"kubectl -n {NAMESPACE} {command}" in notes


@pytest.mark.parametrize(
    ("setting", "without", "warning"),
    [
        ("gateway.existingTokensSecret=clients", True, "the gateway is open"),
        ("networkPolicy.enabled=false", False, "only the API key keeps other pods from vLLM"),
        ("secret.existingSecret=sealed", True, "with new random tokens"),
        ("api.database.existingSecret=postgres", True, "SQLite on one volume"),
        ("storage.models.accessModes={ReadWriteOnce}", False, "volume models is not ReadWriteMany"),
    ],
)
def test_notes_warn(helm: Helm, tmp_path: Path, setting: str, without: bool, warning: str) -> None:
    assert (warning in rendered_notes(helm, tmp_path / "default")) is without
    assert (warning in rendered_notes(helm, tmp_path / "changed", "--set", setting)) is not without
