"""Static files below one path that names what all of them contain, so that browsers may keep them for ever."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fastapi import APIRouter
from starlette.responses import Response

from finetune_operator.web.problems import Problem

STATIC = Path(__file__).parent / "static"
DIGEST_DIGITS = 16
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
SERVED = MappingProxyType(
    {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain", ".toml": "text/plain"}
)


def _read() -> Mapping[str, bytes]:
    """By their paths below the directory; all together are a few hundred kilobytes."""
    found = sorted(path for path in STATIC.rglob("*") if path.suffix in SERVED)
    return MappingProxyType({path.relative_to(STATIC).as_posix(): path.read_bytes() for path in found})


def _digest(files: Mapping[str, bytes]) -> str:
    """Modules import each other by relative paths, so that all of them have one version."""
    whole = hashlib.sha256()
    for name, content in files.items():
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:DIGEST_DIGITS]


FILES = _read()
DIGEST = _digest(FILES)

router = APIRouter(prefix="/static", include_in_schema=False)


def asset(name: str) -> str:
    """The path of a file's present version. Raises KeyError for what is not there, which is a mistake of a template."""
    if name not in FILES:
        raise KeyError(name)
    return f"/static/{DIGEST}/{name}"


@router.get("/{digest}/{name:path}")
async def get_file(digest: str, name: str) -> Response:
    """Open to everybody: they are the same for all, and published."""
    if digest != DIGEST or name not in FILES:
        raise Problem(404, "unknown-file", "this api has no such file, or another version of it: load the page again")
    media_type = SERVED[Path(name).suffix]
    return Response(FILES[name], media_type=media_type, headers=FOREVER)
