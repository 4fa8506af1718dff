"""The format of a chat template that puts one turn after the other, found out from what it renders.

Templates are programs (Jinja); what many of them do is one text before and one after each message, chosen by its role.
Those can be written down in other languages too, such as Ollama's. The others can't, and are told apart by trial: a
format is only one if it renders every probe as the template does.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Messages = Sequence[dict[str, str]]
Render = Callable[[Messages, bool], str]
"""The template: messages, and whether the assistant is to speak next. May raise ValueError."""

# Words that no template has in it.
SYSTEM_TEXT, QUESTION, ANSWER, NEXT_QUESTION, NEXT_ANSWER = "Sysq7", "Qusq8", "Answ9", "Qusq0", "Answ1"


class Turn(NamedTuple):
    """What stands before and after a message."""

    before: str
    after: str


class ChatFormat(NamedTuple):
    """`opening` begins every conversation, `without_system` follows it where no system message does.

    Some templates take no system message at all: they have no `system`.
    """

    opening: str
    without_system: str
    system: Turn | None
    user: Turn
    assistant: Turn
    generation_prompt: str

    def render(self, messages: Messages, ask: bool) -> str:
        """What the template would make of these messages."""
        turns = {"user": self.user, "assistant": self.assistant} | ({"system": self.system} if self.system else {})
        text = self.opening
        if not messages or messages[0]["role"] != "system":
            text += self.without_system
        for message in messages:
            turn = turns[message["role"]]
            text += turn.before + message["content"] + turn.after
        return text + (self.generation_prompt if ask else "")


def find_format(render: Render) -> ChatFormat | None:
    """The format of this template, or None if it does anything else than to put turns after one another."""
    try:
        found = _guess(render)
        if found is None:
            return None
        probes = PROBES if found.system else [probe for probe in PROBES if probe[0][0]["role"] != "system"]
        return found if all(found.render(*probe) == render(*probe) for probe in probes) else None
    except ValueError:
        return None


def _says(*turns: str) -> Messages:
    roles = {SYSTEM_TEXT: "system", QUESTION: "user", NEXT_QUESTION: "user"}
    return [{"role": roles.get(text, "assistant"), "content": text} for text in turns]


PROBES: tuple[tuple[Messages, bool], ...] = tuple(
    (_says(*turns), ask)
    for turns, ask in (
        ((QUESTION,), True),
        ((QUESTION, ANSWER), False),
        ((SYSTEM_TEXT, QUESTION), True),
        ((SYSTEM_TEXT, QUESTION, ANSWER), False),
        ((QUESTION, ANSWER, NEXT_QUESTION), True),
        ((SYSTEM_TEXT, QUESTION, ANSWER, NEXT_QUESTION), True),
        ((SYSTEM_TEXT, QUESTION, ANSWER, NEXT_QUESTION, NEXT_ANSWER), False),
    )
)


def _guess(render: Render) -> ChatFormat | None:
    """From where texts and turns begin and end in a few renderings."""
    one = render(_says(QUESTION), False)
    two = render(_says(QUESTION, ANSWER), False)
    three = render(_says(QUESTION, ANSWER, NEXT_QUESTION), False)
    asked = render(_says(QUESTION), True)
    continued = asked.startswith(one) and two.startswith(one) and three.startswith(two)
    if not continued or QUESTION not in one or ANSWER not in two or NEXT_QUESTION not in three:
        return None
    head, after_user = one.split(QUESTION, 1)
    before_assistant, after_assistant = two[len(one) :].split(ANSWER, 1)
    before_user = three[len(two) :].split(NEXT_QUESTION, 1)[0]
    if not head.endswith(before_user):
        return None
    start = head[: len(head) - len(before_user)]
    opening, system = start, None
    if told := _rendered(render, _says(SYSTEM_TEXT, QUESTION)):
        if SYSTEM_TEXT not in told or QUESTION not in told:
            return None
        before_system, rest = told.split(SYSTEM_TEXT, 1)
        opening = _common_start(start, before_system)
        system = Turn(before_system[len(opening) :], rest.split(QUESTION, 1)[0].removesuffix(before_user))
    return ChatFormat(
        opening=opening,
        without_system=start[len(opening) :],
        system=system,
        user=Turn(before_user, after_user),
        assistant=Turn(before_assistant, after_assistant),
        generation_prompt=asked[len(one) :],
    )


def _rendered(render: Render, messages: Messages) -> str | None:
    """None where the template refuses them."""
    try:
        return render(messages, False)
    except ValueError:
        return None


def _common_start(left: str, right: str) -> str:
    length = next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    return left[: min(len(left), len(right)) if length is None else length]
