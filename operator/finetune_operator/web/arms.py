"""Asking an arm through the gateway, like any other OpenAI client."""

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_operator.web.services import ArmUnavailable
from finetune_operator.web.settings import Settings

ANSWER_MAX_BYTES = 1_048_576
SHOWN_ERROR_MAX_CHARACTERS = 300


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Message(_Part):
    content: str | None = None


class _Choice(_Part):
    message: _Message


class _Completion(_Part):
    """The part of OpenAI's chat completion that matters here."""

    model: str
    choices: tuple[_Choice, ...]


class GatewayArms:
    """Chat completions of the gateway."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._settings = settings
        self._url = f"{settings.gateway_url.rstrip('/')}/v1/chat/completions"

    async def ask(self, served_name: str, prompt: str) -> str:
        """The arm's answer. An answer under another name is refused, since its vote would go to the wrong arm."""
        try:
            status, body = await self._post(served_name, prompt)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ArmUnavailable(f"{served_name} did not answer: {type(error).__name__} {error}".rstrip()) from error
        if status != 200:
            shown = body[:SHOWN_ERROR_MAX_CHARACTERS].decode(errors="replace")
            raise ArmUnavailable(f"the gateway answered {status} for {served_name}: {shown}")
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            raise ArmUnavailable(f"the gateway's answer for {served_name} is not a chat completion") from None
        if completion.model != served_name:
            raise ArmUnavailable(f"the gateway answered as {completion.model} when asked for {served_name}")
        if not completion.choices:
            raise ArmUnavailable(f"{served_name} gave no choices")
        return (completion.choices[0].message.content or "").replace("\x00", "")

    async def _post(self, served_name: str, prompt: str) -> tuple[int, bytes]:
        key = self._settings.gateway_api_key
        body = {
            "model": served_name,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self._settings.comparison_temperature,
            "max_tokens": self._settings.comparison_max_tokens,
        }
        async with self._session.post(
            self._url,
            json=body,
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=self._settings.comparison_timeout_seconds),
            allow_redirects=False,
        ) as response:
            content = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                content += chunk
                if len(content) > ANSWER_MAX_BYTES:
                    raise ArmUnavailable(f"the answer of {served_name} is larger than {ANSWER_MAX_BYTES} bytes")
            return response.status, bytes(content)
