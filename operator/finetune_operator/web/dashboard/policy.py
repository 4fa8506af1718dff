"""What browsers are told about every page, and which requests may change something. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    # Not no-referrer, with which browsers hide the origin of a form, too.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD"})
SECURE_PORTS = {"http": 80, "https": 443}


def is_from_here(headers: Mapping[str, str]) -> bool:
    """Whether a page of this origin sent the request: browsers say so in one of two ways, and other sites can't lie.

    `Sec-Fetch-Site` is sent to https and to localhost, `Origin` with every POST. Who sends neither is no browser.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    origin, host = headers.get("origin"), headers.get("host")
    if not origin or not host:
        return False
    return _with_port(urlsplit(origin).netloc, urlsplit(origin).scheme) == _with_port(host, urlsplit(origin).scheme)


def is_secure(scheme: str, headers: Mapping[str, str]) -> bool:
    """Whether the browser speaks https; a proxy in front says so. Who lies about it only harms their own cookie."""
    return scheme == "https" or headers.get("x-forwarded-proto", "").split(",")[0].strip() == "https"


def safe_path(path: str | None) -> str:
    """Where to go after the log-in: a path of ours, and nothing that a browser takes for another host."""
    is_ours = path is not None and path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_ours and path is not None else "/"


def _with_port(netloc: str, scheme: str) -> str:
    has_port = netloc.rpartition("]")[2].rpartition(":")[1]
    return netloc.lower() if has_port else f"{netloc.lower()}:{SECURE_PORTS.get(scheme, 0)}"
