"""Run by the ML environment with Axolotl's own modules: configs and a DPO row in, what Axolotl says out, as JSON.

Axolotl's schema lets unknown keys pass, so that they are looked for here.
"""

import json
import sys
from typing import Any

from axolotl.prompt_strategies.dpo.chat_template import default as preference_reader
from axolotl.utils.schemas.config import AxolotlInputConfig
from pydantic import ValidationError


class MarkupTokenizer:
    """Shows where Axolotl puts each message."""

    chat_template = "as it is"

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)


def verdict(config: dict[str, Any]) -> str:
    unknown = sorted(config.keys() - AxolotlInputConfig.model_fields.keys())
    if unknown:
        return f"unknown: {unknown}"
    try:
        AxolotlInputConfig.model_validate(config)
    except ValidationError as error:
        return "; ".join(detail["msg"] for detail in error.errors())
    return ""


asked = json.load(sys.stdin)
transform, _ = preference_reader(asked["preferences"])
answer = {
    "verdicts": {name: verdict(config) for name, config in asked["configs"].items()},
    "pair": transform(asked["row"], tokenizer=MarkupTokenizer()),
}
sys.stdout.write("\n" + json.dumps(answer))
