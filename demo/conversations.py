"""Real conversations for the demo: the English part of `chatterbot-corpus` (BSD licence), topic = domain.

Read by the script that fills the ratings database and by the one that makes the base model's training file.
"""

from importlib.resources import files
from typing import NamedTuple

import yaml

# In these topics an entry is a dialogue: each line answers the one before. Elsewhere, all lines answer the first.
DIALOGUE_TOPICS = frozenset({"conversations", "health", "sports"})


class Conversation(NamedTuple):
    """One question with one answer; several answers to a question are several conversations."""

    topic: str
    prompt: str
    response: str


def load_conversations() -> list[Conversation]:
    """Every pair of the corpus once, ordered by topic (the file's name), then as in the file."""
    conversations: dict[Conversation, None] = {}
    directory = files("chatterbot_corpus") / "data" / "english"
    for source in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if not source.name.endswith(".yml"):
            continue
        topic = source.name.removesuffix(".yml")
        for entry in yaml.safe_load(source.read_text(encoding="utf-8"))["conversations"]:
            lines = [" ".join(str(line).split()) for line in entry]
            prompts = lines[:-1] if topic in DIALOGUE_TOPICS else [lines[0]] * (len(lines) - 1)
            for prompt, response in zip(prompts, lines[1:], strict=True):
                if prompt and response and prompt != response:
                    conversations[Conversation(topic, prompt, response)] = None
    return list(conversations)
