"""The Modelfile by which Ollama takes a trained model over: `ollama create NAME -f Modelfile`.

Source: https://docs.ollama.com/modelfile
"""

from collections.abc import Iterable
from typing import NamedTuple

from finetune_operator.contract.places import ADAPTER_NAME, MERGED_NAME
from finetune_operator.core.chat_format import ChatFormat, Turn

BASE_DIRECTORY = "base"
ADAPTER_ARCHITECTURES = ("Gemma", "Llama", "Mistral", "Mixtral")
"""Families whose adapters Ollama takes as safetensors; merged weights it takes of more."""
TRIPLE = '"""'


class Origin(NamedTuple):
    """The base model as a reader of the Modelfile gets at it; `hub_id` is None for a model of a volume."""

    name: str
    architecture: str
    hub_id: str | None = None
    commit: str | None = None


class Conversation(NamedTuple):
    """How the model was talked to: its chat template's format, None where it has none that Ollama can express."""

    format: ChatFormat | None
    bos: str | None
    ends: tuple[str, ...]


def takes_adapter(architecture: str) -> bool:
    """Whether Ollama can put an adapter on a base model such as `LlamaForCausalLM`; Gemma only up to its second."""
    return architecture.startswith(ADAPTER_ARCHITECTURES) and not architecture.startswith(
        ("Gemma3", "Gemma4", "Llama4")
    )


def modelfile(origin: Origin, conversation: Conversation, *, merged: bool) -> str:
    """From the merged weights where they are there, else from base model and adapter.

    Raises ValueError where Ollama has no way to take the adapter.
    """
    if not merged and not takes_adapter(origin.architecture):
        raise ValueError(
            f"Ollama takes no adapter of {origin.architecture}: add MergedWeights to spec.outputs, and the Modelfile "
            "takes those"
        )
    lines = ["# ollama create NAME -f Modelfile"]
    if merged:
        lines += ["# Smaller: ollama create NAME -f Modelfile --quantize q4_K_M", f"FROM ./{MERGED_NAME}"]
    else:
        lines += [*_where(origin), f"FROM ./{BASE_DIRECTORY}", f"ADAPTER ./{ADAPTER_NAME}"]
    template = go_template(conversation.format, conversation.bos) if conversation.format else None
    if template is None:
        lines += [
            "# The chat template does more than to put turns after one another: compare what `ollama show` prints."
        ]
    else:
        lines += [f"TEMPLATE {TRIPLE}{template}{TRIPLE}"]
    lines += [f"PARAMETER stop {_quoted(end)}" for end in _stops(conversation)]
    return "\n".join(lines) + "\n"


def _where(origin: Origin) -> list[str]:
    if origin.hub_id:
        revision = f" --revision {origin.commit}" if origin.commit else ""
        return [f"# The base model: hf download {origin.hub_id}{revision} --local-dir {BASE_DIRECTORY}"]
    return [f"# The base model: put the directory of {_one_line(origin.name)} beside this file as {BASE_DIRECTORY}"]


def go_template(chat: ChatFormat, bos: str | None) -> str | None:
    """In Go's template language; None for a text that a Modelfile can't quote.

    Ollama puts the beginning-of-sequence token in front by itself.
    """
    opening = chat.opening.removeprefix(bos) if bos else chat.opening
    turns = [("user", chat.user), ("assistant", chat.assistant), *([("system", chat.system)] if chat.system else [])]
    body = " else ".join(f"if eq .Role {_quoted(role)} }}}}{_turn(turn)}{{{{" for role, turn in turns)
    system = ""
    if chat.without_system:
        system = (
            '{{ $told := false }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $told = true }}{{ end }}{{ end }}'
            f"{{{{ if not $told }}}}{_literal(chat.without_system)}{{{{ end }}}}"
        )
    template = (
        f"{_literal(opening)}{system}{{{{ range .Messages }}}}{{{{ {body} end }}}}{{{{ end }}}}"
        f"{_literal(chat.generation_prompt)}"
    )
    return None if TRIPLE in template else template


def _turn(turn: Turn) -> str:
    return f"{_literal(turn.before)}{{{{ .Content }}}}{_literal(turn.after)}"


def _literal(text: str) -> str:
    """Text as it is, unless Go would read a part of it as its own."""
    return text.replace("{{", '{{ "{{" }}')


def _stops(conversation: Conversation) -> Iterable[str]:
    chat = conversation.format
    turn_end = chat.assistant.after.strip() if chat else ""
    return dict.fromkeys(end for end in (*conversation.ends, turn_end) if end and "\n" not in end and '"' not in end)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _one_line(text: str) -> str:
    return " ".join(text.split())
