"""Clients of the gateway: the unmodified openai package."""

import threading
from dataclasses import dataclass, field
from types import TracebackType

from openai import OpenAI, OpenAIError

MAX_TOKENS = 40
PAUSE_SECONDS = 0.5


def client(gateway_url: str) -> OpenAI:
    """As anybody would make it; no retries, so that a failure would show."""
    return OpenAI(base_url=f"{gateway_url}/v1", api_key="demo", max_retries=0, timeout=120)


@dataclass(frozen=True)
class Answer:
    """What came back, and who the gateway says answered."""

    text: str
    model: str
    version: str


def ask(openai: OpenAI, model: str, prompt: str, *, max_tokens: int = MAX_TOKENS) -> Answer:
    """One question at temperature 0."""
    raw = openai.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": prompt}], max_tokens=max_tokens, temperature=0
    )
    completion = raw.parse()
    text = completion.choices[0].message.content or ""
    return Answer(text.strip(), completion.model, raw.headers.get("x-finetune-version", ""))


@dataclass
class Chatter:
    """Somebody who keeps chatting with one model, and counts what fails."""

    gateway_url: str
    model: str
    prompts: tuple[str, ...]
    answers: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Chatter":
        self._thread = threading.Thread(target=self._chat, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=150)

    def _chat(self) -> None:
        openai = client(self.gateway_url)
        while not self._stop.is_set():
            try:
                answer = ask(openai, self.model, self.prompts[self.answers % len(self.prompts)])
            except OpenAIError as error:
                self.failures.append(repr(error))
            else:
                self.answers += 1
                self.versions[answer.version] = self.versions.get(answer.version, 0) + 1
            self._stop.wait(PAUSE_SECONDS)
