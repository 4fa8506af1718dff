"""What users get wrong, each with the real containers: a reason, a remedy, Stalled, and no attempts in vain."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from demo.conversations import load_conversations
from demo.install import EXAMPLES, write_to_volume
from demo.ratings import Rating, rate, write_database
from finetune_operator.manifests.training import BACKOFF_LIMIT
from tests.e2e.conftest import World

TIMEOUT_SECONDS = 400

SYMLINK_SCRIPT = "import os, sys; os.path.lexists(sys.argv[1]) or os.symlink('/etc/passwd', sys.argv[1])"

Manifest = dict[str, Any]


def example(name: str, file: str = "finetunejob-sft.yaml") -> Manifest:
    manifest: Manifest = yaml.safe_load((EXAMPLES / file).read_text())
    manifest["metadata"]["name"] = name
    manifest["spec"]["model"] = "broken"
    return manifest


def unknown_base_model(manifest: Manifest) -> None:
    manifest["spec"]["baseModel"]["source"]["volume"]["path"] = "tiny-lama"


def filter_that_empties(manifest: Manifest) -> None:
    manifest["spec"]["dataset"]["ratings"]["domain"] = "astrology"


def rows_too_short(manifest: Manifest) -> None:
    manifest["spec"]["dataset"]["minResponseCharacters"] = 5000


def wrong_database(manifest: Manifest) -> None:
    manifest["spec"]["dataset"]["ratings"]["secretRef"]["key"] = "wrong"


def no_pairs(manifest: Manifest) -> None:
    manifest["spec"]["dataset"]["ratings"]["secretRef"]["key"] = "pairless"


def path_outside_the_volume(manifest: Manifest) -> None:
    manifest["spec"]["dataset"] = {"volume": {"claimName": "ratings", "path": "escape.jsonl"}, "minExamples": 1}


def too_little_memory(manifest: Manifest) -> None:
    manifest["spec"]["resources"] = {"requests": {"memory": "100Mi"}, "limits": {"memory": "150Mi"}}


def refused_before_a_gpu(manifest: Manifest) -> None:
    """The node has none: a pod that asked for one would wait for ever."""
    filter_that_empties(manifest)
    manifest["spec"]["resources"] = {"limits": {"nvidia.com/gpu": 1}}


CASES = {
    "unknown-base-model": ("finetunejob-sft.yaml", unknown_base_model, "BaseModelNotFound", "tiny-lama"),
    "filter-that-empties": ("finetunejob-sft.yaml", filter_that_empties, "DatasetEmpty", "astrology"),
    "rows-too-short": ("finetunejob-sft.yaml", rows_too_short, "DatasetTooSmall", "ShortResponse"),
    "wrong-database": ("finetunejob-sft.yaml", wrong_database, "DatabaseUnreachable", "nowhere.db"),
    "no-pairs": ("finetunejob-dpo.yaml", no_pairs, "DatasetEmpty", "minRatingDifference"),
    "path-outside": ("finetunejob-sft.yaml", path_outside_the_volume, "DatasetInvalid", "escape.jsonl"),
    "refused-before-a-gpu": ("finetunejob-sft.yaml", refused_before_a_gpu, "DatasetEmpty", "astrology"),
    "too-little-memory": ("finetunejob-sft.yaml", too_little_memory, "OutOfMemory", "limits.memory"),
}


@pytest.fixture(scope="module")
def outcomes(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Manifest]]:
    """All of them at once; returns the finished resources by case."""
    kubectl = world.kubectl
    database = tmp_path_factory.mktemp("pairless") / "pairless.db"
    write_database(database, single_ratings())
    write_to_volume(world.target, "ratings", "pairless.db", database.read_bytes())
    write_to_volume(world.target, "ratings", "escape.jsonl", b"", script=SYMLINK_SCRIPT)
    urls = {"wrong": "sqlite:////ratings/nowhere.db", "pairless": "sqlite:////ratings/pairless.db"}
    kubectl.run("patch", "secret", "ratings-db", "--type", "merge", "--patch", json.dumps({"stringData": urls}))
    for case, (file, change, _, _) in CASES.items():
        manifest = example(case, file)
        change(manifest)
        kubectl.apply(copy.deepcopy(manifest))

    def all_finished() -> dict[str, Manifest] | None:
        jobs = {case: kubectl.get("finetunejob", case) for case in CASES}
        done = all(job.get("status", {}).get("phase") in ("Failed", "Succeeded") for job in jobs.values())
        return jobs if done else None

    yield kubectl.wait_for("every bad FineTuneJob ends", all_finished, TIMEOUT_SECONDS)
    kubectl.run("delete", "finetunejobs", *CASES)


def single_ratings() -> list[Rating]:
    """One answer for each question, so that nothing can be preferred to anything."""
    found: dict[str, Rating] = {}
    for row in rate(load_conversations()):
        found.setdefault(row.prompt, row)
    return list(found.values())


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_stalled_with_reason_and_remedy(outcomes: dict[str, Manifest], case: str) -> None:
    _, _, reason, word = CASES[case]
    status = outcomes[case]["status"]
    stalled = next(entry for entry in status["conditions"] if entry["type"] == "Stalled")
    assert status["phase"] == "Failed"
    assert stalled["status"] == "True"
    assert stalled["reason"] == reason, stalled
    assert word in stalled["message"]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_tried_once(world: World, outcomes: dict[str, Manifest], case: str) -> None:
    """But for a kill, of which nobody knows whether it was the container's limit or the node."""
    pods = world.kubectl.get("pods", "--selector", f"finetune.dev/job={case}")["items"]
    assert len(pods) == (1 + BACKOFF_LIMIT if case == "too-little-memory" else 1)
