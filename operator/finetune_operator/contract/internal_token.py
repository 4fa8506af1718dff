"""The token with which a job's containers ask the api, as it is sent."""

import re

SENDABLE = re.compile("[!-~]*")
UNSENDABLE = "the internal token of this namespace can't be sent in a header"
HOW_TO_WRITE = "write internal-token of the chart's Secret in visible ASCII characters, without a line feed"


def token_headers(token: str | None) -> dict[str, str]:
    """Raises `ValueError` where no header can have the token, of which its text has nothing, unlike the library's."""
    if not token:
        return {}
    if not SENDABLE.fullmatch(token):
        raise ValueError(f"{UNSENDABLE}; {HOW_TO_WRITE}")
    return {"Authorization": f"Bearer {token}"}
