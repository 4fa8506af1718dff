"""`lint`, and files as Kubernetes reads them."""

import json
from pathlib import Path

import pytest

from finetune_operator.cli.documents import read_documents
from finetune_operator.cli.failures import ExitCode
from tests.unit.cli.conftest import invoked

EXAMPLES = str(Path(__file__).parents[3] / "examples")
JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: plato-1}
spec:
  model: plato
  baseModel:
    name: tiny
    source: {volume: {claimName: models, path: tiny}}
"""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (JOB + "  training:\n    epochs: many\n", 10, "spec.training.epochs: must be an integer, not text"),
        (JOB + "  training:\n    epoch: 3\n", 10, "spec.training.epoch: is no field here; did you mean epochs?"),
        (JOB + "  training:\n    learningRate: 2e-4\n", 10, "spec.training.learningRate: must be text, not 0.0002"),
        (JOB + "  training: {packing: yes}\n", 9, "spec.training.packing: must be a boolean, not text"),
        (JOB + "  method: DPO\n  training: {packing: true}\n", 10, "only conversations (SFT) can be packed"),
        (JOB + "  outputs:\n  - GgufQ8\n  - GgufQ4\n", 11, 'spec.outputs[1]: "GgufQ4" is none of'),
        (
            JOB + "  nodes: 4\n  backend: Axolotl\n",
            9,
            "only the backends Unsloth and HuggingFace train on several nodes",
        ),
        (JOB.replace("plato-1", "Plato_1"), 3, "metadata.name: 'Plato_1' is no name"),
        (JOB.replace("v1alpha1", "v1"), 1, "apiVersion: must be finetune.dev/v1alpha1"),
        (JOB.replace("FineTuneJob", "FinetuneJob"), 2, "kind: 'FinetuneJob' is no kind of finetune.dev"),
        (JOB.replace("  model: plato\n", ""), 4, "spec.model: is missing"),
        ("---\n# first\n---\n" + JOB + "  lora: {r: 0}\n", 12, "spec.lora.r: 0 is too small: at least 1"),
        (
            "apiVersion: v1\nkind: List\nitems:\n- " + JOB.replace("\n", "\n  ") + "  nodes: 0\n",
            12,
            "spec.nodes: 0 is too small",
        ),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_finding_has_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)

    ended = invoked("lint", str(file))

    assert ended.code == ExitCode.FAILED
    assert ended.out.startswith(f"{file}:{line}: "), ended.out
    assert words in ended.out
    assert ended.err == ""


def test_the_examples_are_valid() -> None:
    ended = invoked("lint", EXAMPLES)
    assert ended.code == ExitCode.DONE
    assert ended.out.endswith("resources are valid\n")


def test_for_programs(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB + "  nodes: 0\n---\nkind: Secret\n")
    told = json.loads(invoked("lint", str(file), "-o", "json").out)
    finding = {"file": str(file), "line": 9, "path": "spec.nodes", "message": "0 is too small: at least 1"}
    assert told == {"resources": 1, "skipped": 1, "findings": [finding]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [1", "not YAML"),
        (b"- 1\n- 2\n", "a resource is a mapping"),
        (b"kind: Secret\n", "none of our kinds"),
        (b"", "none of our kinds"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"!!python/object/apply:os.system ['true']\n", "not YAML"),
        (b"kind: &a\n  - *a\n", "an anchor contains itself"),
        (b"kind: [a]\n", "none of our kinds"),
        (b"kind: a\nkind: b\n", "job.yaml:2: kind is there twice"),
        (
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(b"%c: &%c [%s]\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 10)) for n in range(8)),
            "anchors that unfold",
        ),
    ],
)
def test_what_is_no_file_of_resources(tmp_path: Path, text: bytes, words: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(text)
    ended = invoked("lint", str(file))
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert words in ended.err


def test_a_directory_without_files(tmp_path: Path) -> None:
    assert "no YAML file below" in invoked("lint", str(tmp_path)).err


def test_standard_input() -> None:
    assert invoked("lint", "-", stdin=JOB).out == "1 resource is valid\n"


def test_values_are_what_kubernetes_makes_of_them(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("{a: 2e-4, b: yes, c: 2026-11-22, d: true, e: 0.1, f: 1, g: '1', h: ~}\n")
    (document,) = read_documents(str(file))
    expected = {"a": 2e-4, "b": "yes", "c": "2026-11-22", "d": True, "e": 0.1, "f": 1, "g": "1", "h": None}
    assert document.body == expected
