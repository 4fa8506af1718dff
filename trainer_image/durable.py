"""Files and directories that appear whole, and are still there after a power cut."""

import os
from pathlib import Path


def write(file: Path, text: str) -> None:
    """A reader sees the old content or the new one."""
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(text)
    publish(temporary, file)


def publish(temporary: Path, destination: Path) -> None:
    """Readable for everybody, on the disk, and only then by its name."""
    for path in temporary.iterdir() if temporary.is_dir() else ():
        path.chmod(0o644)
        sync(path)
    temporary.chmod(0o755 if temporary.is_dir() else 0o644)
    sync(temporary)
    temporary.rename(destination)
    sync(destination.parent)


def sync(path: Path) -> None:
    """To the disk before the next step: a rename that outlives its files after a power cut is half an adapter."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
