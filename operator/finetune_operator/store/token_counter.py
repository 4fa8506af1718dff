"""How many tokens the training rows have, by the base model's own tokenizer and chat template.

    python -m finetune_operator.store.token_counter < request.json

A process of its own, without secrets in its environment: the template is a program (Jinja), and both come from a model
repository that nobody has vouched for. Jinja's sandbox, set up as Transformers does, keeps a template from Python's
internals; the limits below keep it from taking all time and memory. Whoever starts this reads one JSON object: lengths,
or what the trouble was.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune_operator.contract.base import Message
from finetune_operator.contract.preflight import TokenLengths
from finetune_operator.core.token_lengths import RowTokens, token_lengths

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

TOKENIZER_NAME = "tokenizer.json"
SAMPLED_ROWS_MAX = 2_000
SAMPLED_BYTES_MAX = 8 * 2**20
CPU_SECONDS_MAX = 60
DATA_BYTES_MAX = 640 * 2**20
TOKENIZER_BYTES_MAX = 64 * 2**20
CONFIG_BYTES_MAX = 16 * 2**20
TEMPLATE_BYTES_MAX = 2**20
SHOWN_MAX_CHARACTERS = 200

# As Transformers names them; a template may write each.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

ChatMessages = Sequence[Mapping[str, str]]


class Request(Message):
    """What to count; paths are absolute."""

    model: str
    rows: str
    method: Literal["SFT", "DPO"]
    max_tokens: int
    batch_size: int


class Answer(Message):
    """Either of the two."""

    lengths: TokenLengths | None = None
    trouble: str | None = None


class Trouble(Exception):
    """Why these rows' lengths can't be known."""


def main() -> int:
    request = Request.model_validate_json(sys.stdin.buffer.read())
    _limit()
    try:
        answer = Answer(lengths=counted(request))
    except Trouble as trouble:
        answer = Answer(trouble=_shown(str(trouble)))
    except MemoryError:
        answer = Answer(trouble=f"its tokenizer needs more than {DATA_BYTES_MAX // 2**20} MiB of memory")
    sys.stdout.write(answer.model_dump_json(by_alias=True))
    return 0


def counted(request: Request) -> TokenLengths | None:
    """None where there are no rows. Raises `Trouble`."""
    return token_lengths(row_tokens(request), request.max_tokens, request.batch_size, "Tokenizer")


def row_tokens(request: Request) -> list[RowTokens]:
    """Of each sampled row. Raises `Trouble`."""
    counter = _Counter.of(Path(request.model))
    rows = []
    for number, row in enumerate(sampled(Path(request.rows)), start=1):
        try:
            rows.append(counter.pair(row) if request.method == "DPO" else counter.conversation(row))
        except MemoryError:
            raise
        except Exception as error:
            # The template is a foreign program, which may fail in any way.
            raise Trouble(f"its chat template refuses row {number}: {type(error).__name__}: {error}") from error
    return rows


def sampled(rows: Path) -> Iterator[Mapping[str, Any]]:
    """The first rows: the seed has put them into a random order, so that they are a sample of all."""
    left = SAMPLED_BYTES_MAX
    with rows.open("rb") as lines:
        for number, line in enumerate(lines):
            left -= len(line)
            if number >= SAMPLED_ROWS_MAX or (left < 0 and number > 0):
                return
            yield json.loads(line)


class _Counter:
    """One model's tokenizer and template."""

    def __init__(self, tokenizer: "Tokenizer", template: "Template", special: Mapping[str, str]) -> None:
        self._tokenizer, self._template, self._special = tokenizer, template, special

    @staticmethod
    def of(model: Path) -> "_Counter":
        from jinja2 import TemplateError
        from tokenizers import AddedToken, Tokenizer

        settings = _settings(model)
        try:
            tokenizer = Tokenizer.from_buffer(_read(model / TOKENIZER_NAME, TOKENIZER_BYTES_MAX))
        except Trouble:
            raise
        except Exception as error:
            raise Trouble(f"its {TOKENIZER_NAME} can't be read: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = {name: text for name in SPECIAL_TOKENS if (text := _token(settings.get(name)))}
        known = tokenizer.get_added_tokens_decoder().values()
        missing = set(special.values()) - {token.content for token in known}
        tokenizer.add_special_tokens([AddedToken(text, special=True) for text in sorted(missing)])
        try:
            return _Counter(tokenizer, _environment().from_string(_chat_template(model, settings)), special)
        except TemplateError as error:
            raise Trouble(f"its chat template is none: {error}") from error

    def conversation(self, row: Mapping[str, Any]) -> RowTokens:
        """The row's length, and where its first answer begins, as the trainer finds it."""
        messages: ChatMessages = row["messages"]
        whole = self._ids(messages)
        for index, message in enumerate(messages):
            if message["role"] == "assistant" and index > 0:
                return RowTokens((len(whole),), _common(whole, self._ids(messages[:index], ask=True)))
        return RowTokens((len(whole),), len(whole))

    def pair(self, row: Mapping[str, Any]) -> RowTokens:
        prompt: list[Mapping[str, str]] = row["prompt"]
        answers = (len(self._ids([*prompt, *row[name]])) for name in ("chosen", "rejected"))
        return RowTokens(tuple(answers), len(self._ids(prompt, ask=True)))

    def _ids(self, messages: ChatMessages, *, ask: bool = False) -> list[int]:
        text = self._template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=ask, **self._special
        )
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _environment() -> Any:
    """As Transformers' `render_jinja_template` has it."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant says; here its body is all that counts."""

        tags = {"generation"}

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now(UTC).strftime(layout)
    return environment


def _settings(model: Path) -> Mapping[str, Any]:
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if not (model / name).is_file():
            continue
        try:
            found = json.loads(_read(model / name, CONFIG_BYTES_MAX))
        except (ValueError, RecursionError) as error:
            raise Trouble(f"its {name} can't be read: {error}") from error
        if not isinstance(found, dict):
            raise Trouble(f"its {name} is no object")
        settings |= found
    return settings


def _chat_template(model: Path, settings: Mapping[str, Any]) -> str:
    """A file of its own goes before the setting; of several templates the one named default."""
    file = model / "chat_template.jinja"
    if file.is_file():
        return _read(file, TEMPLATE_BYTES_MAX).decode(errors="replace")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {each["name"]: each["template"] for each in template if isinstance(each, dict) and "name" in each}
        template = named.get("default")
    if not isinstance(template, str):
        raise Trouble("it has no chat template")
    if len(template) > TEMPLATE_BYTES_MAX:
        raise Trouble(f"its chat template is longer than {TEMPLATE_BYTES_MAX} characters")
    return template


def _token(value: object) -> str | None:
    """Written as text, or as an object with more about it."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and text else None


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise Trouble(f"its {path.name} can't be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise Trouble(f"its {path.name} is larger than {max_bytes // 2**20} MiB")
    return content


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    different = (at for at, (left, right) in enumerate(zip(first, second, strict=False)) if left != right)
    return next(different, min(len(first), len(second)))


def _limit() -> None:
    """Of this process: time, memory, and no files written."""
    for what, most in (
        (resource.RLIMIT_CPU, CPU_SECONDS_MAX),
        (resource.RLIMIT_DATA, DATA_BYTES_MAX),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _shown(text: str) -> str:
    """One bounded line, since the model's files decide what it says."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return line if len(line) <= SHOWN_MAX_CHARACTERS else f"{line[:SHOWN_MAX_CHARACTERS]}..."


if __name__ == "__main__":
    # Before the library starts a thread for each core.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sys.exit(main())
