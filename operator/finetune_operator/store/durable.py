"""Files that are still there after a power cut."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """A new file's content; its name is durable once the directory was synced, too."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """A reader sees the old content or the new one, whenever the writer dies."""
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary, content)
    temporary.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Of a directory, the names in it; of a file that others wrote, its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
