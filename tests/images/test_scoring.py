"""The scores of answers by name, against the libraries by which papers report them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.evaluation import Metric
from tests.images.ml_environment import REPOSITORY
from tests.images.training import environment_of_images

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from sacrebleu.metrics import BLEU
from rouge_score.rouge_scorer import RougeScorer
from finetune_operator.contract.evaluation import Metric
from finetune_operator.core.scoring import score

def oracle(answers, references):
    names = {"Rouge1": "rouge1", "Rouge2": "rouge2", "RougeL": "rougeL"}
    scorer = RougeScorer(list(names.values()), use_stemmer=True)
    each = [scorer.score(reference, answer) for answer, reference in zip(answers, references)]
    means = {metric: sum(one[name].fmeasure for one in each) / len(each) for metric, name in names.items()}
    return means | {"Bleu": BLEU().corpus_score(answers, [references]).score / 100}

cases = json.load(sys.stdin)
said = {name: {"ours": score(tuple(Metric), *case), "theirs": oracle(*case)} for name, case in cases.items()}
print(json.dumps(said))
"""
LONG = [
    "The quick brown fox jumps over the lazy dog, and then it sleeps for hours under a tree.",
    "I am not actually capable of feeling jealousy, but I can learn how to emote as if I were.",
]
CASES: dict[str, tuple[list[str], list[str]]] = {
    "the same": (LONG, LONG),
    "one word differs": ([LONG[0].replace("lazy", "sleepy"), LONG[1]], LONG),
    "other endings": (["The quickly browned foxes jumped over lazy dogs and they sleep.", LONG[1][:50]], LONG),
    "nothing in common": (["zzz yyy xxx www", "vvv uuu ttt sss"], LONG),
    "no answer": (["", LONG[1]], LONG),
    "short and the same": (["I am software."], ["I am software."]),
    "another script": (["мне грустно сегодня вечером"], ["мне грустно сегодня вечером"]),
    "labels": (["A", "b.", "A"], ["A", "B", "B"]),
}
LIBRARY_METRICS = ("Bleu", "Rouge1", "Rouge2", "RougeL")


@pytest.fixture(scope="module")
def scores(ml_python: Path) -> dict[str, dict[str, dict[str, float]]]:
    """By case, ours and the libraries' own; one process, since their imports take seconds."""
    command = [str(ml_python), "-c", SCRIPT, str(REPOSITORY / "trainer_image")]
    output = subprocess.run(
        command, input=json.dumps(CASES), check=True, capture_output=True, text=True, env=environment_of_images()
    ).stdout
    answer: dict[str, Any] = json.loads(output)
    return answer


@pytest.mark.parametrize("metric", LIBRARY_METRICS)
@pytest.mark.parametrize("case", ["the same", "one word differs", "other endings", "nothing in common", "no answer"])
def test_english_of_some_length_scores_as_the_libraries_say(
    scores: dict[str, dict[str, dict[str, float]]], case: str, metric: str
) -> None:
    assert scores[case]["ours"][metric] == pytest.approx(scores[case]["theirs"][metric], abs=1e-9)


@pytest.mark.parametrize("case", ["the same", "short and the same", "another script"])
def test_the_reference_itself_has_the_full_score(scores: dict[str, dict[str, dict[str, float]]], case: str) -> None:
    assert scores[case]["ours"] == pytest.approx(dict.fromkeys(scores[case]["ours"], 1.0))


def test_every_metric_of_answers_has_a_score(scores: dict[str, dict[str, dict[str, float]]]) -> None:
    assert set(scores["labels"]["ours"]) == set(Metric) - {Metric.TOKEN_ACCURACY}
    assert scores["labels"]["ours"]["Accuracy"] == pytest.approx(2 / 3)
