"""The Modelfile as reviewed text, and what Ollama has no way to take."""

import pytest

from finetune_operator.core.chat_format import find_format
from finetune_operator.core.modelfile import Conversation, Origin, go_template, modelfile, takes_adapter
from tests.golden_files import assert_golden_text
from tests.unit.core.chat_templates import BOS, EXPRESSIBLE, chatml

LLAMA = Origin(
    "llama-3.1-8b", "LlamaForCausalLM", "meta-llama/Llama-3.1-8B-Instruct", "0e9e39f249a16976918f6564b8830bc8"
)
ENDS = {"chatml": ("<|im_end|>",), "llama-3": ("<|eot_id|>", "<|end_of_text|>"), "mistral": ("</s>",)}


def conversation(template: str) -> Conversation:
    return Conversation(find_format(EXPRESSIBLE[template]), BOS, ENDS.get(template, ("<eos>",)))


@pytest.mark.parametrize(
    ("name", "origin", "template", "merged"),
    [
        ("merged-chatml", Origin("tiny-llama", "LlamaForCausalLM"), "chatml", True),
        ("adapter-llama-3", LLAMA, "llama-3", False),
        ("adapter-gemma", Origin("gemma-2-2b", "Gemma2ForCausalLM"), "gemma", False),
        ("adapter-mistral", Origin("mistral-7b", "MistralForCausalLM"), "mistral", False),
        ("merged-qwen", Origin("qwen2.5", "Qwen2ForCausalLM", "Qwen/Qwen2.5-7B-Instruct"), "qwen", True),
    ],
)
def test_the_modelfile_is_the_reviewed_one(name: str, origin: Origin, template: str, merged: bool) -> None:
    assert_golden_text(f"Modelfile-{name}", modelfile(origin, conversation(template), merged=merged))


def test_a_template_that_ollama_can_not_express_is_told_and_not_guessed() -> None:
    text = modelfile(LLAMA, Conversation(None, BOS, ("</s>",)), merged=True)

    assert "TEMPLATE" not in text
    assert "# The chat template does more" in text
    assert 'PARAMETER stop "</s>"' in text


@pytest.mark.parametrize(
    ("architecture", "taken"),
    [
        ("LlamaForCausalLM", True),
        ("MistralForCausalLM", True),
        ("MixtralForCausalLM", True),
        ("Gemma2ForCausalLM", True),
        ("GemmaForCausalLM", True),
        ("Gemma3ForCausalLM", False),
        ("Llama4ForConditionalGeneration", False),
        ("Qwen2ForCausalLM", False),
        ("Phi3ForCausalLM", False),
    ],
)
def test_adapters_of_some_families_are_taken(architecture: str, taken: bool) -> None:
    assert takes_adapter(architecture) is taken


def test_an_adapter_of_another_family_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="takes no adapter of Qwen2ForCausalLM: add MergedWeights"):
        modelfile(Origin("qwen", "Qwen2ForCausalLM"), conversation("chatml"), merged=False)


def test_what_go_would_read_as_its_own_is_quoted() -> None:
    found = find_format(lambda messages, ask: "{{ bos }}" + chatml(messages, ask))

    assert found is not None
    assert str(go_template(found, None)).startswith('{{ "{{" }} bos }}{{ range .Messages }}')


def test_what_a_modelfile_can_not_quote_is_left_out() -> None:
    found = find_format(lambda messages, ask: '"""' + chatml(messages, ask))

    assert found is not None
    assert go_template(found, None) is None


def test_a_name_of_several_lines_stays_a_comment() -> None:
    text = modelfile(Origin("llama\nFROM evil", "LlamaForCausalLM"), conversation("chatml"), merged=False)

    assert "\nFROM evil" not in text
