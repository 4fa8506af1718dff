"""OpenAI's own client, unmodified, with one address and one key: from a file of conversations to the answers of the
model that was trained on it, on a real node.
"""

import json

from openai import InternalServerError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion
from openai.types.fine_tuning import FineTuningJob

from demo import install
from demo.chat import MAX_TOKENS
from demo.conversations import load_conversations
from demo.story import ALIAS, BASE_MODEL, QUESTIONS, SERVING_TIMEOUT_SECONDS, TRAINING_TIMEOUT_SECONDS
from tests.e2e.conftest import World, editor_token

CONVERSATIONS = 60
FAMILY = "by-client"
FINISHED = frozenset({"succeeded", "failed", "cancelled"})


def rows() -> bytes:
    chosen = [each for each in load_conversations() if len(each.prompt) >= 10 and len(each.response) >= 20]
    turns = (
        [{"role": "user", "content": each.prompt}, {"role": "assistant", "content": each.response}]
        for each in chosen[:CONVERSATIONS]
    )
    return "".join(json.dumps({"messages": messages}) + "\n" for messages in turns).encode()


def test_one_client_goes_from_a_file_to_answers(world: World) -> None:
    token = editor_token(world, "client")
    with world.kubectl.port_forward(f"{install.RELEASE}-api") as url:
        client = OpenAI(base_url=f"{url}/v1", api_key=token, timeout=120)
        file = client.files.create(file=("conversations.jsonl", rows()), purpose="fine-tune")
        made = client.fine_tuning.jobs.create(
            model=f"volume://models/{BASE_MODEL}",
            training_file=file.id,
            suffix=FAMILY,
            seed=7,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
            extra_body={"quantization": "none"},
        )

        def ended() -> FineTuningJob | None:
            found = client.fine_tuning.jobs.retrieve(made.id)
            return found if found.status in FINISHED else None

        job = world.kubectl.wait_for("the training ends", ended, TRAINING_TIMEOUT_SECONDS)
        assert (job.status, job.fine_tuned_model) == ("succeeded", f"{FAMILY}-v1"), job.error
        assert any(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job.id, limit=100))
        header, *measured = client.files.content(job.result_files[0]).text.splitlines()
        assert header.startswith("step,train_loss,valid_loss")
        assert measured

        def asked(name: str) -> ChatCompletion:
            question = [{"role": "user", "content": QUESTIONS[0]}]
            return client.chat.completions.create(model=name, messages=question, max_tokens=MAX_TOKENS, temperature=0)

        def answering() -> ChatCompletion | None:
            try:
                return asked(f"{FAMILY}-v1")
            except (NotFoundError, InternalServerError):
                # Not loaded yet, or not known to the gateway.
                return None

        tuned = world.kubectl.wait_for("the version answers", answering, SERVING_TIMEOUT_SECONDS)
        assert (tuned.model, bool(tuned.choices[0].message.content)) == (f"{FAMILY}-v1", True)
        known = {model.id for model in client.models.list()}
        assert {f"{FAMILY}-v1", ALIAS, BASE_MODEL} <= known
        for name in (ALIAS, BASE_MODEL):
            assert client.models.retrieve(name).id == name
            assert asked(name).choices[0].message.content
        client.files.delete(file.id)
