"""Which chat templates are one turn after the other, and that nothing else is taken for such."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.chat_format import ChatFormat, Messages, Turn, find_format
from tests.unit.core import chat_templates
from tests.unit.core.chat_templates import EXPRESSIBLE, NOT_EXPRESSIBLE

DIALOGUE = [
    {"role": "system", "content": "You are Plato."},
    {"role": "user", "content": "What is virtue?"},
    {"role": "assistant", "content": "Can it be taught?"},
    {"role": "user", "content": "You tell me."},
]


@pytest.mark.parametrize("name", EXPRESSIBLE)
@pytest.mark.parametrize("ask", [True, False])
def test_a_found_format_renders_dialogues_as_the_template_does(name: str, ask: bool) -> None:
    render = EXPRESSIBLE[name]
    found = find_format(render)

    assert found is not None
    for length in range(1, len(DIALOGUE)):
        assert found.render(DIALOGUE[1 : 1 + length], ask) == render(DIALOGUE[1 : 1 + length], ask)
    if found.system:
        assert found.render(DIALOGUE, ask) == render(DIALOGUE, ask)


def test_a_template_that_refuses_system_messages_has_none() -> None:
    gemma, llama = find_format(chat_templates.gemma), find_format(chat_templates.llama_3)

    assert gemma is not None
    assert llama is not None
    assert gemma.system is None
    assert llama.system == Turn("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>")


@pytest.mark.parametrize("name", NOT_EXPRESSIBLE)
def test_any_other_template_has_no_format(name: str) -> None:
    assert find_format(NOT_EXPRESSIBLE[name]) is None


def test_a_template_that_refuses_everything_has_no_format() -> None:
    def refuse(messages: Messages, ask: bool) -> str:
        raise ValueError("no")

    assert find_format(refuse) is None


WORDS = st.text(alphabet="<|>[]/\nab:", max_size=6)
TURNS = st.builds(Turn, WORDS, WORDS)


@given(st.builds(ChatFormat, WORDS, WORDS, TURNS, TURNS, TURNS, WORDS))
def test_whatever_is_found_is_what_the_template_does(template: ChatFormat) -> None:
    """Texts around turns can be cut in more than one way; any cut will do that renders the same."""
    found = find_format(template.render)

    assert found is not None
    for ask in (True, False):
        assert found.render(DIALOGUE, ask) == template.render(DIALOGUE, ask)
        assert found.render(DIALOGUE[1:], ask) == template.render(DIALOGUE[1:], ask)
