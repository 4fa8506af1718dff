"""The log of a container of the operator's image, whose end the api keeps."""

import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from finetune_operator import logs
from finetune_operator.contract.job_logs import LOG_MAX_LINES
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.log_posts import INTERVAL_SECONDS, LogPosts
from finetune_operator.store.urls import UnusableUrl, parse_url, secrets_of

logger = logs.get_logger(__name__)


@contextmanager
def posted_log(
    config: TrainingConfig,
    container: Literal["prepare", "trainer"],
    environment: Mapping[str, str],
    interval_seconds: float = INTERVAL_SECONDS,
) -> Iterator[None]:
    """While it lasts, what is logged is posted, at the end with the traceback of what nobody has caught."""
    lines: deque[str] = deque(maxlen=LOG_MAX_LINES)
    posts = LogPosts(
        config,
        container,
        environment,
        lambda: "".join(f"{line}\n" for line in list(lines)),
        lambda error: logger.warning("the log can't be posted; the work goes on", error=error),
        interval_seconds,
        _secrets_of_database(environment),
    )
    keep = lines.append
    logs.COPIES.append(keep)
    try:
        yield
    except Exception:
        lines.append(traceback.format_exc().rstrip())
        raise
    finally:
        posts.close()
        logs.COPIES.remove(keep)


def _secrets_of_database(environment: Mapping[str, str]) -> tuple[str | None, ...]:
    try:
        return secrets_of(parse_url(environment.get(DATABASE_URL_VARIABLE, "")))
    except UnusableUrl:
        return ()
