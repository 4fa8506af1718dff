"""A dataset run through a served version and its base model, on a real node."""

import hashlib
import json
from typing import Any

import httpx2
import yaml

from demo.install import EXAMPLES
from demo.story import BASE_MODEL, ENGINE_PODS, FIRST, SECOND
from tests.e2e.blind_votes import comparison, vote
from tests.e2e.conftest import World

TIMEOUT_SECONDS = 300
VOTED_ROWS = 4
READ = "import sys; sys.stdout.write(open(sys.argv[1]).read())"


def test_every_row_has_an_answer_of_both_models_in_the_same_order(world: World) -> None:
    manifest: dict[str, Any] = yaml.safe_load((EXAMPLES / "batchinference.yaml").read_text())
    name = manifest["metadata"]["name"]
    world.kubectl.apply(manifest)
    world.kubectl.run("wait", f"batchinference/{name}", "--for=condition=Succeeded", f"--timeout={TIMEOUT_SECONDS}s")

    status = world.kubectl.get("batchinference", name)["status"]
    results = status["results"]
    assert status["progress"]["done"] == status["progress"]["total"] == 2 * results["rows"]
    assert results["rows"] > 0
    assert results["failed"] == 0

    directory = results["uri"].replace("volume://", "/", 1)
    told = json.loads(read(world, f"{directory}/manifest.json"))
    asked = [json.loads(line)["custom_id"] for line in read(world, f"{directory}/requests.jsonl").splitlines()]
    assert {model["servedName"] for model in results["models"]} == {SECOND, BASE_MODEL}
    for model in results["models"]:
        content = read(world, f"{directory}/{model['file']}")
        assert hashlib.sha256(content.encode()).hexdigest() in json.dumps(told)
        lines = [json.loads(line) for line in content.splitlines()]
        assert [line["custom_id"] for line in lines] == asked
        assert {line["response"]["status_code"] for line in lines} == {200}
        assert {line["response"]["body"]["model"] for line in lines} == {model["servedName"]}


def test_people_vote_blind_on_what_two_versions_said_to_a_dataset(world: World, api: httpx2.Client) -> None:
    name = "put-to-the-vote"
    request = {
        "name": name,
        "model_version": SECOND,
        "compare_with": FIRST,
        "domain": "ai",
        "ratings_claim": "ratings",
        "limit": VOTED_ROWS,
        "max_tokens": 32,
        "vote": True,
    }
    api.post("/v1/fine-tuning/batches", json=request).raise_for_status()
    try:
        world.kubectl.run(
            "wait", f"batchinference/{name}", "--for=condition=Succeeded", f"--timeout={TIMEOUT_SECONDS}s"
        )
        results = world.kubectl.get("batchinference", name)["status"]["results"]
        directory = results["uri"].replace("volume://", "/", 1)
        said = {model["servedName"]: answers(world, f"{directory}/{model['file']}") for model in results["models"]}
        assert said.keys() == {FIRST, SECOND}

        test = world.kubectl.get("abtest", name)
        judged: set[str] = set()
        while found := comparison(api, test):
            assert found["prompt"] not in judged
            judged.add(found["prompt"])
            assert not any(version in json.dumps(found) for version in (FIRST, SECOND))
            sides = vote(api, test, found, "tie")
            for letter, text in found["answers"].items():
                assert text in said[sides[letter]["served_name"]]
        assert len(judged) == VOTED_ROWS == results["rows"]
        tied = f"--for=jsonpath={{.status.votes.tie}}={VOTED_ROWS}"
        world.kubectl.run("wait", f"abtest/{name}", tied, f"--timeout={TIMEOUT_SECONDS}s")
    finally:
        world.kubectl.run("delete", f"batchinference/{name}", f"abtest/{name}", "--ignore-not-found")


def answers(world: World, path: str) -> list[str]:
    """What a model said to each row."""
    lines = (json.loads(line) for line in read(world, path).splitlines())
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]


def read(world: World, path: str) -> str:
    """A file of the artifacts volume, by a pod that has it mounted."""
    pod = world.kubectl.get(*ENGINE_PODS)["items"][0]["metadata"]["name"]
    return world.kubectl.run("exec", pod, "--", "python", "-c", READ, path)
