"""`finetune-operator dataset` as a person runs it: arguments in, one JSON object and files out."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.__main__ import main
from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core.dataset_records import EXPECTED
from tests.unit.store.ratings_database import rating, write_ratings


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = write_ratings(tmp_path / "ratings.db", (rating(number, domain="law") for number in range(20)))
    monkeypatch.setenv(DATABASE_URL_VARIABLE, made)
    return made


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_export_tells_what_it_made(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "out"
    assert main(["dataset", "export", str(directory), "--format", "Alpaca", "--domain", "law"]) == 0
    told = answer(capsys)
    assert (told["sample_count"], told["rows"], told["test_rows"], told["format"]) == (20, 18, 2, "Alpaca")
    assert told["dataset_path"] == str(directory / "train.jsonl")
    assert {path.name for path in directory.iterdir()} == {"train.jsonl", "test.jsonl", "report.json", "dropped.jsonl"}
    assert json.loads(Path(told["dataset_path"]).read_text().split("\n")[0]).keys() == {
        "instruction",
        "input",
        "output",
    }


def test_what_was_exported_can_be_exported_again_in_another_format(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dataset", "export", str(tmp_path / "1"), "--format", "Alpaca", "--test-fraction", "0"]) == 0
    first = str(tmp_path / "1" / "train.jsonl")
    again = ["dataset", "export", str(tmp_path / "2"), "--file", first, "--input-format", "Alpaca"]
    capsys.readouterr()
    assert main([*again, "--format", "ChatML", "--test-fraction", "0"]) == 0
    assert answer(capsys)["sample_count"] == 20
    assert main(["dataset", "export", str(tmp_path / "3"), "--test-fraction", "0"]) == 0
    assert (tmp_path / "3" / "train.jsonl").read_bytes() == (tmp_path / "2" / "train.jsonl").read_bytes()


def test_pairs_as_far_apart_as_points_or_a_share_of_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [
        rating(
            2 * prompt + answer,
            prompt=f"Question {prompt}?",
            response=f"{answer} is all that I know of it.",
            rating=4 - answer * apart,
        )
        for prompt, apart in enumerate((1, 2, 3))
        for answer in (0, 1)
    ]
    monkeypatch.setenv(DATABASE_URL_VARIABLE, write_ratings(tmp_path / "ratings.db", answers))
    counts = {}
    for flags in (
        (),
        ("--min-rating-difference", "2"),
        ("--min-confidence-diff", "0.5"),
        ("--min-confidence-diff=0.75",),
    ):
        out = str(tmp_path / "-".join(("out", *flags)))
        assert main(["dataset", "export", out, "--format", "DPO", "--test-fraction", "0", *flags]) == 0
        counts[flags] = answer(capsys)["rows"]
    assert list(counts.values()) == [3, 2, 2, 1]
    for wrong in (
        ["--min-confidence-diff", "1.5"],
        ["--min-confidence-diff=x"],
        [*("--min-rating-difference", "2"), *("--min-confidence-diff", "0.5")],
    ):
        with pytest.raises(SystemExit):
            main(["dataset", "export", str(tmp_path / "no"), "--format", "DPO", *wrong])
        said = capsys.readouterr().err
        assert "write a number from 0 to 1" in said or "not allowed with" in said


def test_no_gold_stars_names_the_filter(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["dataset", "export", str(tmp_path / "out"), "--philosopher", "kant"])
    assert code == EXIT_CODES[FailureReason.DATASET_EMPTY]
    said = capsys.readouterr()
    assert "philosopher='kant' leaves none of the 20 rows" in said.err
    assert not said.out
    assert not list((tmp_path / "out").iterdir())


def test_a_dataset_is_not_overwritten(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "export", str(tmp_path / "out")]) == 0
    assert main(["dataset", "export", str(tmp_path / "out")]) == EXIT_CODES[FailureReason.INVALID_CONFIG]
    assert "holds a dataset already" in capsys.readouterr().err


def test_the_url_may_be_in_a_file(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(DATABASE_URL_VARIABLE)
    (tmp_path / "url").write_text(f"{url}\n")
    assert main(["dataset", "stats", "--url-file", str(tmp_path / "url")]) == 0
    assert answer(capsys) == {
        "rows": 20,
        "by_filter": [
            {"filter": name, "rows": 20}
            for name in ("the table", "goldStarOnly (is_gold_star and use_as_sample_response)", "minRating=4")
        ],
        "by_domain": {"law": 20},
        "by_task_type": {"summarization": 20},
        "by_rating": {"5": 20},
        "average_prompt_characters": 30.5,
        "average_response_characters": 49.5,
        "examples": [
            {
                "prompt": f"What is the use of question {number}?",
                "response": f"Question {number} is of use to those who think about it.",
                "rating": "5",
            }
            for number in range(3)
        ],
    }
    assert main(["dataset", "stats", "--url-file", str(tmp_path / "none")]) != 0


def test_formats_are_listed_with_what_they_look_like(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "formats"]) == 0
    assert {name: told["record"] for name, told in answer(capsys).items()} == EXPECTED


def test_the_command_line_takes_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dataset", "export", "--help"])
    assert not {"--url ", "--password", "--secret"} & set(capsys.readouterr().out.split("\n"))
    with pytest.raises(SystemExit):
        main(["dataset", "export", "out", "--url", "postgresql://u:p@h/d"])
