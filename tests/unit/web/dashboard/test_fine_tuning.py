"""The pages below /fine-tuning: what they show, and what their forms do."""

import json
import re
from datetime import UTC, datetime
from html import escape, unescape
from typing import Any

import pytest

from finetune_operator.contract.job_logs import LogTail
from finetune_operator.contract.training import JobIdentity
from finetune_operator.core.cost import price_book
from finetune_operator.store import job_logs
from finetune_operator.web.dashboard.templating import UNKNOWN
from finetune_operator.web.problems import Problem
from tests.builders import merged
from tests.unit.web.dashboard import sights
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.sights import HOSTILE, NAMESPACE, at, condition, job, progressing
from tests.unit.web.rest.played_api_server import EDIT, VIEW, User

JOB = f"/fine-tuning/jobs/{NAMESPACE}"
MODEL = f"/fine-tuning/models/{NAMESPACE}"
PAGES = (
    "/fine-tuning",
    "/fine-tuning?status=failed",
    "/fine-tuning/gold-stars",
    "/fine-tuning/new",
    "/fine-tuning/datasets",
    "/fine-tuning/models",
    "/fine-tuning/base-models",
    f"{JOB}/plato-train",
    f"{JOB}/plato-train/card",
    f"{JOB}/plato-train/log",
    f"{JOB}/plato-wait/log",
    f"{JOB}/plato-bad",
    f"{JOB}/plato-done",
    f"{MODEL}/plato-v2",
    f"{MODEL}/plato-v3",
)


SMOL_SHAPE = {
    "modelType": "llama", "hiddenSize": 576, "intermediateSize": 1536, "numHiddenLayers": 30, "numAttentionHeads": 9,
    "numKeyValueHeads": 3, "vocabSize": 49_152, "tieWordEmbeddings": True,
}  # fmt: skip


def priced(editor: Browser, prices: str) -> None:
    services = editor.rest.services
    settings = services.settings.model_copy(update={"prices": price_book(prices)})
    object.__setattr__(services, "settings", settings)


def assert_each_figure_is_known_or_explained(page: str) -> None:
    """Neither a dash nor a nought, and a reason for each that is not known."""
    facts = page[page.index("Rows to train on") :]
    for figure in ("Rows", "GPU memory", "Steps", "Time", "Cost"):
        is_unknown = re.search(f"{figure}(?: to train on)? unknown(?! ?:)", facts)
        is_explained = re.search(f"{figure}(?:, [A-Z][A-Za-z ]+?)* unknown: ", facts)
        assert bool(is_unknown) == bool(is_explained), (figure, facts)
    assert UNKNOWN not in facts.partition("On GPUs that people compare")[0]


def words(page: str) -> str:
    """The text that a person reads."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.parametrize("path", PAGES)
async def test_each_page_shows_hostile_text_as_text_and_runs_nothing_inline(editor: Browser, path: str) -> None:
    page = await editor.page(path)
    assert "<img src=x" not in page
    assert "document.title=" not in re.sub(r"&[^;]+;", "", page) or "&lt;script&gt;" in page
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", page)
    assert not re.search(r"<[^>]+\s(?:style|on[a-z]+)=", page)
    assert "javascript:" not in page


async def test_the_overview_has_figures_counts_active_and_finished_trainings(editor: Browser) -> None:
    page = words(await editor.page("/fine-tuning"))
    assert "Active trainings 3" in page
    assert "Deployed models 1 of 3 versions" in page
    assert "Average win rate 67.5 % of 2 judged versions" in page
    for text in ("queued 2", "training 1", "failed 1", "cancelled 1", "completed 1"):
        assert text in page
    assert "Done 42 % Left 58m Step 504 of 1 200" in page
    assert "Finished trainings" in page


async def test_gold_stars_are_counted_in_the_ratings_database(editor: Browser) -> None:
    assert "Gold stars 25" in words(await editor.page("/fine-tuning/gold-stars"))


async def test_what_is_unknown_is_a_dash(editor: Browser) -> None:
    editor.rest.cluster.objects.clear()
    page = words(await editor.page("/fine-tuning"))
    assert f"Average win rate {UNKNOWN} no version was judged yet" in page


async def test_trainings_are_chosen_by_status(editor: Browser) -> None:
    page = await editor.page("/fine-tuning?status=failed")
    table = page[page.index('id="jobs-title"') :]
    assert "plato-bad" in table
    assert "plato-done" not in table


async def test_who_may_not_list_trainings_sees_the_rest_and_why(editor: Browser) -> None:
    rights = {right for right in VIEW if right[1] != "finetunejobs"}
    editor.rest.cluster.users["editor"] = User("some", rights)
    page = words(await editor.page("/fine-tuning"))
    assert f"Active trainings {UNKNOWN}" in page
    assert 'cannot list resource "finetunejobs"' in page
    assert "plato-v2" in page


async def test_rights_are_those_of_the_namespace(editor: Browser) -> None:
    editor.rest.cluster.users["editor"] = User("some", EDIT, {"elsewhere"})
    answer = await editor.get(f"{JOB}/plato-train")
    assert answer.status_code == 403
    assert "RoleBinding" in answer.text
    assert (await editor.get("/fine-tuning/jobs/elsewhere/plato")).status_code == 404


async def test_a_job_page_shows_what_is_known(editor: Browser) -> None:
    page = words(await editor.page(f"{JOB}/plato-done"))
    for text in (
        "Final loss 0.9876",
        "Held-out loss 1.0123",
        "1.9876",
        "Trained for 1h30m",
        "Cost 4.31 USD",
        "Rouge1 31.0 % 47.0 % ▲ better",
        "adapter finetune/plato",
        "35.0 MiB",
        "kubectl get finetunejob plato-done -n finetune -o yaml",
        "kind: FineTuneJob",
    ):
        assert text in page, text


PRICELESS = condition("CostKnown", "False", "NoPrice", "no price for <cpu>: set prices.perHour")


@pytest.mark.parametrize(
    ("status", "amount", "why"),
    [
        (
            {"cost": {"currency": "USD", "spent": "2", "basis": "allocated time x 1 GPU"}},
            "2.00 USD",
            "allocated time x 1 GPU",
        ),
        ({"conditions": [PRICELESS]}, UNKNOWN, "no price for <cpu>: set prices.perHour"),
    ],
    ids=["known", "unknown"],
)
async def test_a_cost_has_its_basis_or_a_reason_wherever_it_is_shown(
    editor: Browser, status: dict[str, Any], amount: str, why: str
) -> None:
    put = editor.rest.cluster.put
    put("finetunejobs", job(21, "plato-runs", {"phase": "Training", "progress": progressing(1)} | status))
    put("finetunejobs", job(22, "plato-ended", {"phase": "Succeeded", "completionTime": at(-1)} | status))
    for path, label in (
        (f"{JOB}/plato-runs", "Cost so far"),
        (f"{JOB}/plato-ended", "Cost"),
        ("/wizard/training/finetune.plato-ended", "Cost"),
        ("/fine-tuning", "Cost so far"),
    ):
        assert f"{label} {amount} {why}" in words(await editor.page(path)), path
    listed = await editor.page("/fine-tuning?status=completed")
    row = listed[listed.index("plato-ended") :]
    assert f"{amount} {why}" in words(row[: row.index("</tr>")])
    assert f'title="{escape(why)}"' in row


async def test_a_failed_one_says_why(editor: Browser) -> None:
    page = words(await editor.page(f"{JOB}/plato-bad"))
    assert f"the base model answered {HOSTILE}: correct it" in page
    assert "Train again" in page


async def test_the_log_is_the_end_of_what_the_pod_wrote(editor: Browser) -> None:
    page = words(await editor.page(f"{JOB}/plato-train/log"))
    assert "The last lines of container trainer of pod plato-train-0-abcde" in page
    assert f"the model says {HOSTILE}" in page
    assert "has written nothing yet" in await editor.page(f"{JOB}/plato-wait/log")
    assert "Its pod is gone" in await editor.page(f"{JOB}/plato-done/log")


async def test_the_log_of_a_training_without_a_pod_is_what_it_told_last(editor: Browser) -> None:
    metadata = editor.rest.cluster.objects["finetunejobs", NAMESPACE, "plato-done"]["metadata"]
    job = JobIdentity(namespace=NAMESPACE, name="plato-done", uid=metadata["uid"])
    tail = LogTail.of(job, "trainer", f"the model said {HOSTILE}", datetime(2026, 11, 22, 12, tzinfo=UTC))
    await job_logs.record(editor.rest.services.engine, tail)
    page = words(await editor.page(f"{JOB}/plato-done/log"))
    assert "The last lines of container trainer, kept when the pod ended" in page
    assert f"the model said {HOSTILE}" in page


async def test_who_may_not_read_logs_is_told(editor: Browser) -> None:
    editor.rest.cluster.users["editor"] = User("some", {right for right in VIEW if "pods" not in right[1]})
    assert "pods is forbidden" in words(await editor.page(f"{JOB}/plato-train/log"))


async def test_the_curve_has_a_value_or_a_gap_for_each_step(editor: Browser) -> None:
    curve = (await editor.get(f"{JOB}/plato-train/curve")).json()
    assert [line["label"] for line in curve["series"]] == ["training loss", "held-out loss"]
    assert curve["x"] == sorted(curve["x"])
    assert {len(line["y"]) for line in curve["series"]} == {len(curve["x"])}
    assert None in curve["series"][1]["y"]


async def test_cancel_suspend_and_resume(editor: Browser) -> None:
    def spec(name: str) -> object:
        return editor.rest.cluster.objects["finetunejobs", NAMESPACE, name]["spec"]

    for verb, name, expected in (
        ("suspend", "plato-train", {"suspend": True}),
        ("resume", "plato-rest", {"suspend": False}),
        ("cancel", "plato-train", {"suspend": True, "cancel": True}),
    ):
        answer = await editor.post(f"{JOB}/{name}/{verb}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{JOB}/{name}")
        assert expected.items() <= spec(name).items()  # type: ignore[attr-defined]
    refused = await editor.post(f"{JOB}/plato-done/cancel")
    assert refused.status_code == 409
    assert "has ended and can&#39;t be cancelled" in refused.text


async def test_training_again_makes_a_new_job_of_the_same_spec_once(editor: Browser) -> None:
    first = await editor.post(f"{JOB}/plato-ended/retry", {"key": "0badcafe"})
    second = await editor.post(f"{JOB}/plato-ended/retry", {"key": "0badcafe"})
    assert first.headers["location"] == second.headers["location"]
    made = editor.rest.cluster.objects["finetunejobs", NAMESPACE, first.headers["location"].rpartition("/")[2]]
    old = editor.rest.cluster.objects["finetunejobs", NAMESPACE, "plato-ended"]
    assert made["spec"] == {name: value for name, value in old["spec"].items() if name != "cancel"}


class BrokenWorker:
    """A ratings database that does not answer."""

    async def outcome(self, *_: object) -> None:
        raise Problem(503, "ratings-unreachable", "the ratings database did not answer")


class TestDatasets:
    async def test_counts_say_why_there_are_none(self, editor: Browser) -> None:
        object.__setattr__(editor.rest.services, "worker", BrokenWorker())
        answer = await editor.post("/fine-tuning/datasets/count", {"domain": "ethics"}, HX_Request="true")
        assert (answer.status_code, "did not answer" in answer.text) == (200, True)

    async def test_counts_follow_the_filters(self, editor: Browser) -> None:
        all_of_them = await editor.post("/fine-tuning/datasets/count", {"switches": "gold_star_only"})
        assert "25 ratings" in words(all_of_them.text)
        some = words((await editor.post("/fine-tuning/datasets/count", {"domain": "ethics"})).text)
        assert "24 ratings" in some
        assert "Domain ethics 24" in some
        none = words((await editor.post("/fine-tuning/datasets/count", {"domain": "law", "min_rating": "5"})).text)
        assert "0 ratings: loosen “Domain 'law'”, which took the last ones" in none
        assert "All ratings 25 Domain 'law' 0 takes the last ones Gold stars only 0 Lowest rating 5 0" in none

    @pytest.mark.parametrize("path", ["/fine-tuning/datasets/count", "/wizard/data/count"])
    async def test_the_first_rows_are_shown_as_text(self, editor: Browser, path: str) -> None:
        assert (await editor.post(path, {})).text.count('class="example"') == 3
        page = (await editor.post(path, {"domain": HOSTILE})).text
        example = page[page.index('class="example"') :]
        assert "Asked What is the use of question 99? Answered, 5 stars It is" in words(f"<dl {example}")
        assert ("<script>" in page, "&lt;script&gt;" in example) == (False, True)

    async def test_a_wrong_filter_is_told_where_htmx_shows_it(self, editor: Browser) -> None:
        answer = await editor.post("/fine-tuning/datasets/count", {"min_rating": "6"}, HX_Request="true")
        assert (answer.status_code, answer.headers["hx-retarget"]) == (422, "#notices")
        assert "min_rating: Input should be less than or equal to 5" in words(answer.text)

    async def test_export_look_download_and_delete(self, editor: Browser) -> None:
        answer = await editor.post("/fine-tuning/datasets", {"test_fraction": "0.2", "switches": "gold_star_only"})
        where = answer.headers["location"]
        page = await editor.page(where)
        assert "&lt;script&gt;document.title" in page or "What is the use of question" in words(page)
        assert "<script>document" not in page
        assert where.rpartition("/")[2][:18] in await editor.page("/fine-tuning/datasets")
        file = await editor.get(f"{where}/files/train.jsonl")
        assert file.headers["content-type"] == "application/jsonl"
        assert file.headers["content-disposition"].startswith("attachment")
        assert (await editor.post(f"{where}/delete")).headers["location"] == "/fine-tuning/datasets"
        assert (await editor.get(where)).status_code == 404

    async def test_who_may_not_train_sees_no_ratings(self, editor: Browser) -> None:
        editor.rest.cluster.users["editor"] = User("reader", VIEW)
        assert "`create` on finetunejobs" in words(await editor.page("/fine-tuning/datasets"))
        assert "`create` on finetunejobs" in words(await editor.page("/fine-tuning/gold-stars"))


class TestNewJob:
    FORM = {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "model": "plato",
        "num_epochs": "3",
        "lora_r": "8",
        "domain": "ethics",
        "switches": "gradient_checkpointing gold_star_only",
        "gradient_checkpointing": "true",
        "gold_star_only": "true",
        "key": "0badcafe",
    }

    async def test_the_outlook_has_rows_memory_time_and_the_object(self, editor: Browser) -> None:
        page = words((await editor.post("/fine-tuning/new/outlook", self.FORM)).text)
        assert "Rows to train on 22" in page
        assert "Parameters 0.13 B" in page
        assert "GPU memory" in page
        assert "kind: FineTuneJob" in page
        assert "epochs" not in page
        assert "lora: r: 8" in page
        assert "kubectl apply -f job.yaml" in page
        assert editor.rest.cluster.writes() == []

    async def test_the_outlook_without_a_ratings_database_lacks_the_rows_alone(self, editor: Browser) -> None:
        object.__setattr__(editor.rest.services, "worker", BrokenWorker())
        answer = await editor.post("/fine-tuning/new/outlook", self.FORM, HX_Request="true")
        assert answer.status_code == 200
        assert "the ratings database did not answer" in answer.text
        assert "kind: FineTuneJob" in answer.text

    async def test_it_costs_what_the_installation_says(self, editor: Browser) -> None:
        priced(editor, '{"currency": "EUR", "perHour": {"cpu": "0.04"}, "gpuTypes": {"NVIDIA-L4": "0.80"}}')
        page = words((await editor.post("/fine-tuning/new/outlook", self.FORM)).text)
        assert re.search(r"L4 Likely \S+ to \S+ 0\.\d+ to 0\.\d+ EUR", page), page
        assert re.search("H100 Likely \\S+ to \\S+ " + UNKNOWN, page), page

    @pytest.mark.parametrize(
        ("changes", "device", "told"),
        [
            pytest.param(
                {"gpu_type": "NVIDIA-L4"}, {"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}},
                r"Time 1s to 6s Cost 0\.0002 to 0\.0012 EUR ", id="a type with a price",
            ),
            pytest.param(
                {"gpu_type": "Tesla-T4"}, {"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}}},
                r"Time 1s to 6s Cost 0\.0027 to 0\.0145 EUR ", id="a type by the price of any GPU",
            ),
            pytest.param(
                {"quantization": "none", "gpus": "0", "cpus": "16"}, {"resources": {"requests": {"cpu": "16"}}},
                r"Time 1s to 30s Cost 0\.0002 to 0\.0052 EUR ", id="CPU cores",
            ),
            pytest.param(
                {}, {}, r"Time 1s to 6s Cost 0\.0002 to 0\.0145 EUR On any type of GPU: fastest on B200 "
                r"\(1s to 5s\), cheapest on L4 \(0\.0002 to 0\.0012 EUR\)", id="any",
            ),
        ],
    )  # fmt: skip
    async def test_time_and_cost_are_told_of_what_it_runs_on(
        self, editor: Browser, changes: dict[str, str], device: dict[str, object], told: str
    ) -> None:
        book = {"cpu": "0.04", "nvidia.com/gpu": "9"}
        priced(editor, json.dumps({"currency": "EUR", "perHour": book, "gpuTypes": {"NVIDIA-L4": "0.80"}}))
        for path in ("/fine-tuning/new", "/wizard/train"):
            page = words((await editor.post(f"{path}/outlook", self.FORM | changes)).text)
            assert re.search(told, page), page
            assert_each_figure_is_known_or_explained(page)
            assert "unknown" not in page
        where = (await editor.post("/fine-tuning/new", self.FORM | changes)).headers["location"].rpartition("/")[2]
        spec = editor.rest.cluster.objects["finetunejobs", NAMESPACE, where]["spec"]
        assert device.items() <= spec.items()

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({}, 'Cost unknown: no price for nvidia.com/gpu: set prices.perHour."nvidia.com/gpu" or prices.gpuTypes'),
            ({"quantization": "none"}, "Time, Cost unknown: the job asks for neither a GPU nor cpu"),
        ],
    )
    async def test_without_a_price_or_a_device_it_says_what_to_set(
        self, editor: Browser, changes: dict[str, str], why: str
    ) -> None:
        page = words((await editor.post("/fine-tuning/new/outlook", self.FORM | changes)).text)
        assert why in page
        assert_each_figure_is_known_or_explained(page)

    async def test_the_forms_offer_the_types_of_the_price_book_first(self, editor: Browser) -> None:
        priced(editor, '{"gpuTypes": {"NVIDIA-L4": "0.80", "NVIDIA-H100-MIG-1g": "1"}, "perHour": {}}')
        for path in ("/fine-tuning/new", "/wizard/train?base_model=Qwen%2FQwen3-0.6B"):
            types = re.findall(r'<option value="((?:NVIDIA|Tesla)-\S+)">(.*?)</option>', await editor.page(path))
            assert types[:2] == [
                ("NVIDIA-L4", "24 GiB, 0.80 USD per hour"),
                ("NVIDIA-H100-MIG-1g", "speed not known, 1 USD per hour"),
            ]
            assert ("Tesla-T4", "16 GiB, no price") in types

    async def test_what_was_shown_is_what_is_made_once(self, editor: Browser) -> None:
        answer = await editor.post("/fine-tuning/new", self.FORM)
        again = await editor.post("/fine-tuning/new", self.FORM)
        assert (answer.status_code, again.headers["location"]) == (303, answer.headers["location"])
        name = answer.headers["location"].rpartition("/")[2]
        assert editor.rest.cluster.objects["finetunejobs", NAMESPACE, name]["spec"] == {
            "model": "plato",
            "baseModel": {
                "name": "smollm2-135m-instruct",
                "source": {"hub": {"id": "HuggingFaceTB/SmolLM2-135M-Instruct"}},
            },
            "lora": {"r": 8},
            "dataset": {"ratings": {"domain": "ethics"}},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        }

    async def test_a_provider_trains_within_a_budget(self, editor: Browser) -> None:
        provider = {
            "backend": "openai",
            "base_model": "gpt-4.1-mini",
            "lora_r": "",
            "openai_secret": "openai/api-key",
            "openai_base_url": "https://provider.test/v1",
            "openai_multiplier": "0.5",
            "max_cost": "25",
            "currency": "EUR",
        }
        page = words((await editor.post("/fine-tuning/new/outlook", self.FORM | provider)).text)
        assert "baseUrl: https://provider.test/v1" in page
        answer = await editor.post("/fine-tuning/new", self.FORM | provider)
        name = answer.headers["location"].rpartition("/")[2]
        spec = editor.rest.cluster.objects["finetunejobs", NAMESPACE, name]["spec"]
        assert spec["openai"] == {
            "secretRef": {"name": "openai", "key": "api-key"},
            "baseUrl": "https://provider.test/v1",
            "learningRateMultiplier": "0.5",
        }
        assert (spec["backend"], spec["budget"]) == ("OpenAI", {"maxCost": "25", "currency": "EUR"})
        assert "resources" not in spec

    @pytest.mark.parametrize(
        ("prices", "told"),
        [
            pytest.param("{}", 'Cost unknown: no price for training gpt-4.1-mini: set prices.perMillionTokens."gpt-4.1',
                         id="no price"),
            pytest.param('{"perMillionTokens": {"gpt-4.1-mini": "5"}}', "Cost 0.", id="a price"),
        ],
    )  # fmt: skip
    async def test_a_provider_is_told_by_rows_tokens_and_price(self, editor: Browser, prices: str, told: str) -> None:
        priced(editor, prices)
        provider = {"backend": "openai", "base_model": "gpt-4.1-mini", "openai_secret": "openai/api-key"}
        page = words((await editor.post("/fine-tuning/new/outlook", self.FORM | provider)).text)
        assert "Rows to train on 22" in page
        assert re.search(r"Steps 17 Tokens [1-9]", page), page
        assert told in page
        assert "GPU memory unknown: a provider trains on its own machines" in page
        assert "Time unknown: a provider's time is not known" in page
        assert_each_figure_is_known_or_explained(page)

    @pytest.mark.parametrize(
        ("base_model", "remedy"),
        [
            ("volume://models/llama-of-ours", "finetune-operator estimate job.yaml --base-model"),
            ("somebody/some-model", "finetune-operator estimate job.yaml reads it at the hub"),
        ],
    )
    async def test_another_base_model_is_told_once_a_training_has_looked(
        self, editor: Browser, base_model: str, remedy: str
    ) -> None:
        form = self.FORM | {"base_model": base_model}
        before = words((await editor.post("/fine-tuning/new/outlook", form)).text)
        assert "Parameters, GPU memory, Steps, Time, Cost unknown: config.json" in before
        assert remedy in before
        assert_each_figure_is_known_or_explained(before)

        looked = (await editor.post("/fine-tuning/new", form)).headers["location"].rpartition("/")[2]
        body = editor.rest.cluster.objects["finetunejobs", NAMESPACE, looked]
        editor.rest.cluster.put("finetunejobs", body | {"status": {"preflight": {"shape": SMOL_SHAPE}}})
        after = words((await editor.post("/fine-tuning/new/outlook", form)).text)
        assert "Parameters 0.13 B" in after
        assert re.search(r"GPU memory \d+\.\d GiB Steps 18 ", after), after
        assert_each_figure_is_known_or_explained(after)

    async def test_a_base_model_of_another_kind_is_told_apart(self, editor: Browser) -> None:
        form = self.FORM | {"base_model": "somebody/experts"}
        looked = (await editor.post("/fine-tuning/new", form)).headers["location"].rpartition("/")[2]
        body = editor.rest.cluster.objects["finetunejobs", NAMESPACE, looked]
        editor.rest.cluster.put("finetunejobs", body | {"status": {"preflight": {"warnings": []}}})
        page = words((await editor.post("/fine-tuning/new/outlook", form)).text)
        assert "of no dense decoder of Llama's shape: try training.maxSteps 10 first" in page

    async def test_rows_that_only_the_job_reads_say_so(self, editor: Browser) -> None:
        form = {name: value for name, value in self.FORM.items() if name not in ("domain", "gold_star_only")}
        form |= {"dataset_path": "s3://bucket/rows.jsonl", "switches": "gradient_checkpointing"}
        page = words((await editor.post("/fine-tuning/new/outlook", form)).text)
        assert "Rows unknown: s3://bucket/rows.jsonl is read by the job alone" in page
        assert "Steps unknown: the rows' lengths are not known" in page
        assert_each_figure_is_known_or_explained(page)

    async def test_the_form_explains_providers_and_budgets(self, editor: Browser) -> None:
        page = words(await editor.page("/fine-tuning/new"))
        for text in ("A provider with an OpenAI-compatible API", "Secret with the API key", "What it may cost"):
            assert text in page, text

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"backend": "openai"}, "openai_secret: write <name>/<key>"),
            ({"openai_suffix": "plato"}, "openai_suffix: of a provider"),
            ({"max_cost": "0"}, "max_cost: Input should be greater than 0"),
            ({"currency": "EUR"}, "currency is of max_cost"),
            ({"base_model": ""}, "base_model must be set"),
            ({"base_model": "what is this"}, "base_model: write <owner>/<name>"),
            ({"num_epochs": "many"}, "num_epochs: Input should be a valid integer"),
            ({"gpus": "0"}, "quantization 4bit needs a GPU"),
            ({"lora_r": "100000"}, "lora.r"),
            ({"learning_rate": HOSTILE}, "learning_rate"),
        ],
    )
    async def test_a_mistake_says_what_to_change(self, editor: Browser, changes: dict[str, str], told: str) -> None:
        answer = await editor.post("/fine-tuning/new/outlook", self.FORM | changes)
        assert told in words(answer.text)
        assert "<script>document" not in answer.text


class TestModels:
    async def test_versions_are_chosen_by_state(self, editor: Browser) -> None:
        page = await editor.page("/fine-tuning/models?state=Ready")
        assert "plato-v1" in page
        assert "plato-v2" not in page

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("model=socrates", []),
            ("philosopher=plato", ["plato-v2"]),
            ("domain=nowhere&state=Deployed", []),
            ("model=plato&state=Ready", ["plato-v1"]),
        ],
    )
    async def test_versions_are_chosen_by_what_rest_knows(self, editor: Browser, query: str, names: list[str]) -> None:
        listed = await editor.rest.get(f"/v1/fine-tuning/models?{query}", {"Authorization": "Bearer editor"})
        expected = [each["name"] for each in listed.json()["models"]]
        assert set(names) <= set(expected)
        page = await editor.page(f"/fine-tuning/models?{query}")
        assert re.findall(rf'<a href="{MODEL}/([-a-z0-9]+)">', page) == expected
        for name, value in (pair.split("=") for pair in query.split("&")):
            assert f'name="{name}"' in page
            assert f'value="{value}"' in page
        assert "/v1/fine-tuning/models?" in page

    async def test_pages_of_versions_go_on_and_back(self, editor: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("finetune_operator.web.dashboard.model_pages.LISTED", 1)
        first = await editor.page("/fine-tuning/models?model=plato")
        assert ">Newest</a>" not in first
        older = re.search(r'href="(/fine-tuning/models\?model=plato&amp;after=[^"]+)">Older', first)
        assert older
        second = await editor.page(unescape(older[1]))
        assert 'href="/fine-tuning/models?model=plato">Newest</a>' in second
        names = [re.findall(rf'<a href="{MODEL}/([-a-z0-9]+)">', page) for page in (first, second)]
        assert [len(each) for each in names] == [1, 1]
        assert names[0] != names[1]

    async def test_a_version_has_its_metrics_history_and_yaml(self, editor: Browser) -> None:
        page = words(await editor.page(f"{MODEL}/plato-v2"))
        for text in ("Win rate 67.5 %", "Elo 1 532", "kubectl-patch", "kind: ModelVersion", "ethics"):
            assert text in page, text

    async def test_deploying_and_rolling_back(self, editor: Browser) -> None:
        answer = await editor.post(f"{MODEL}/plato-v1/deploy", {"max_model_len": "4096", "notes": "better"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{MODEL}/plato-v1")
        spec = editor.rest.cluster.objects["modelversions", NAMESPACE, "plato-v1"]["spec"]
        assert (spec["state"], spec["serving"], spec["notes"]) == ("Deployed", {"maxModelLen": 4096}, "better")
        refused = await editor.post(f"{MODEL}/plato-v3/rollback")
        assert refused.status_code == 409
        assert "is not the active version" in refused.text

    async def test_what_is_only_registered_can_be_served_beside_the_one_that_answers(self, editor: Browser) -> None:
        spec = sights.version(1, "Ready")["spec"]
        editor.rest.cluster.put("modelversions", sights.version(1, "Ready") | {"spec": spec | {"serving": None}})
        page = await editor.page(f"{MODEL}/plato-v1")
        assert ("Only serve it" in page, 'id="measure"' in page) == (True, False)
        answer = await editor.post(f"{MODEL}/plato-v1/serve", {"notes": "to be tried"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{MODEL}/plato-v1")
        found = editor.rest.cluster.objects["modelversions", NAMESPACE, "plato-v1"]["spec"]
        assert (found["serving"], found["notes"], "state" in found) == ({}, "to be tried", False)
        page = await editor.page(f"{MODEL}/plato-v1")
        assert ("Only serve it" in page, 'id="measure"' in page) == (False, True)

    @pytest.mark.parametrize(
        ("form", "asked"),
        [
            ({}, {"metrics": ["RougeL", "TokenF1"], "saturation": None}),
            (
                {"answers": "labels", "max_examples": "12", "saturation": "true", "switches": "saturation"},
                {"metrics": ["Accuracy", "Precision", "Recall", "F1"], "maxExamples": 12, "saturation": {}},
            ),
        ],
        ids=["by one click", "with everything said"],
    )
    async def test_a_version_is_measured(self, editor: Browser, form: dict[str, str], asked: dict[str, object]) -> None:
        answer = await editor.post(f"{MODEL}/plato-v2/evaluate", form)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{MODEL}/plato-v2")
        spec = editor.rest.cluster.objects["modelversions", NAMESPACE, "plato-v2"]["spec"]
        assert spec["evaluation"] == {name: value for name, value in asked.items() if value is not None}
        assert "Not measured yet: the operator has not begun" in words(await editor.page(f"{MODEL}/plato-v2"))

    async def test_a_wrong_number_of_questions_is_told(self, editor: Browser) -> None:
        answer = await editor.post(f"{MODEL}/plato-v2/evaluate", {"max_examples": "0"})
        assert answer.status_code == 422
        assert "max_examples" in answer.text


async def test_base_models_lead_to_the_form(editor: Browser) -> None:
    page = await editor.page("/fine-tuning/base-models")
    assert 'href="/fine-tuning/new?base_model=Qwen/Qwen3-0.6B"' in page
    chosen = await editor.page("/fine-tuning/new?base_model=Qwen/Qwen3-0.6B")
    assert 'value="Qwen/Qwen3-0.6B"' in chosen


@pytest.fixture
def visitor(editor: Browser) -> Browser:
    """Of an open api, without a token."""
    services = editor.rest.services
    object.__setattr__(services, "settings", services.settings.model_copy(update={"api_token": None}))
    return Browser(editor.rest, None)


async def test_an_open_api_says_what_is_open_and_where_to_log_in(visitor: Browser) -> None:
    page = await visitor.page("/fine-tuning")
    assert "This api runs open. Anyone who reaches it may see models and tests, vote and rate answers;" in words(page)
    assert 'for who <a href="/login?next=/fine-tuning">logs in</a>' in page


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/fine-tuning", 200), ("/batches", 200), ("/cost", 200), ("/cost/trainings", 200), ("/wizard", 200),
        (f"{JOB}/plato-done", 403), ("/batches/finetune.none", 403),
    ],
)  # fmt: skip
async def test_a_visitor_reads_how_people_log_in(visitor: Browser, path: str, status: int) -> None:
    answer = await visitor.get(path)
    assert answer.status_code == status
    assert "this needs a Kubernetes token of your own, with which you log in" in words(answer.text)
    assert "Authorization" not in answer.text.partition("terminal")[0]
    assert (f'<a role="button" href="/login?next={path}">Log in</a>' in answer.text) == (status == 403)


async def test_who_is_logged_in_and_may_not_is_not_sent_to_log_in(editor: Browser) -> None:
    editor.rest.cluster.users["editor"] = User("nobody", frozenset())
    answer = await editor.get(f"{JOB}/plato-done")
    assert (answer.status_code, 'role="button" href="/login' in answer.text) == (403, False)


@pytest.mark.parametrize(
    ("state", "offered"), [("Ready", False), ("Pending", False), ("Failed", True)], ids=["loaded", "loading", "failed"]
)
async def test_a_version_that_is_asked_for_says_so_in_place_of_the_form(
    editor: Browser, state: str, offered: bool
) -> None:
    """One that has failed may be asked for with other settings."""
    editor.rest.cluster.put("modelversions", merged(sights.version(1, state), {"spec": {"state": "Deployed"}}))
    page = await editor.page(f"{MODEL}/plato-v1")
    assert ('id="deploy"' in page, "It was asked for:" in page) == (offered, not offered)


async def test_what_can_be_done_with_a_version_follows_what_is_live(editor: Browser) -> None:
    """Each way has an id of its own, so that an open question never becomes another under the cursor."""
    live = 'id="actions" data-live="modelversions" data-live-id="finetune.plato-v{number}"'
    deployed, ready = await editor.page(f"{MODEL}/plato-v2"), await editor.page(f"{MODEL}/plato-v1")
    assert live.format(number=2) in deployed
    assert live.format(number=1) in ready
    for page in (deployed, ready):
        section = page[page.index('id="actions"') :]
        assert 'hx-select="#actions" hx-trigger="live" hx-swap="outerMorph" hx-target="this"' in section
    assert ('id="rollback" hx-morph-skip' in deployed, 'id="deploy"' in deployed) == (True, False)
    assert ('id="rollback" hx-morph-skip' in ready, 'id="deploy"' in ready) == (False, True)
