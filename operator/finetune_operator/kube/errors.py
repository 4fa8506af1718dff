"""What the API server can answer instead of an object.

KubeError
 |- NotFound        404, also the kind itself
 |- Conflict        409, somebody wrote in between or the name is taken
 |- Gone            410, the resource version is too old: list again
 |- Rejected        400, 403, 422, the request itself is wrong: trying again won't help
 `- Unavailable     429, 5xx, or no answer: try again later
"""


class KubeError(Exception):
    """Any failure of a request to the API server."""

    def __init__(
        self, message: str, status: int | None = None, retry_after_seconds: float | None = None, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.reason = reason
        """The API server's one word, such as `AlreadyExists`."""


class NotFound(KubeError):
    """The object or its kind does not exist."""


class Conflict(KubeError):
    """The object changed since it was read, or its name is taken."""


class Gone(KubeError):
    """The resource version has been compacted."""


class Rejected(KubeError):
    """The API server understood and refused."""

    @property
    def is_invalid(self) -> bool:
        """Whether the object itself is wrong; whatever else is refused, such as by a quota, may be taken later."""
        return self.status == INVALID


class Unavailable(KubeError):
    """The API server can't answer now."""


INVALID = 422
BY_STATUS: dict[int, type[KubeError]] = {
    400: Rejected, 401: Unavailable, 403: Rejected, 404: NotFound, 409: Conflict, 410: Gone, INVALID: Rejected,
}  # fmt: skip


def error_for(status: int, message: str, retry_after_seconds: float | None = None, reason: str = "") -> KubeError:
    """401 counts as unavailable, since a rotated token is read anew for the next request."""
    return BY_STATUS.get(status, Unavailable)(message, status, retry_after_seconds, reason)
