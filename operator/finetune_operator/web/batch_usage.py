"""What a batch inference has taken of versions, as gateways tell it: its pod asks engines itself, past all of them.

Pure. Its status has the sums, by the uid of each version, once all answers are there.
"""

from datetime import datetime
from typing import Any

from finetune_operator.contract.usage import DayOfUsage, UsageReport
from finetune_operator.store.usage import BATCH_REPORTER

Object = dict[str, Any]


def usage_of(body: Object) -> UsageReport | None:
    """Of the raw object; None as long as there is nothing to tell. Told again it is the same report."""
    status = body.get("status") or {}
    results, ended = status.get("results") or {}, status.get("completionTime")
    asked = [each for each in results.get("models") or () if each.get("versionUid")]
    if not asked or ended is None:
        return None
    day, rows = datetime.fromisoformat(ended).date(), results["rows"]
    days = (
        DayOfUsage(
            version_uid=each["versionUid"],
            day=day,
            calls=rows - each["failed"],
            failed=each["failed"],
            calls_with_tokens=rows - each["failed"],
            prompt_tokens=each["promptTokens"],
            completion_tokens=each["completionTokens"],
        )
        for each in asked
    )
    return UsageReport(reporter=f"{BATCH_REPORTER}{body['metadata']['uid']}", days=tuple(days))
