"""`finetune-operator artifacts DIRECTORY`: what a job's directory on the artifacts volume holds, as JSON."""

import sys
from collections.abc import Iterator
from pathlib import Path

from finetune_operator.contract.artifacts import ArtifactListing
from finetune_operator.core.artifact_listing import FoundFile, list_files


def main(directory: Path) -> int:
    """Each file with its type and size, of a job that trains as well as of one that is done."""
    if not directory.is_dir():
        sys.stderr.write(f"{directory} is no directory: name one like /artifacts/NAMESPACE/MODEL/JOB-UID\n")
        return 1
    listing = ArtifactListing(list_files(files_below(directory)))
    sys.stdout.write(listing.model_dump_json(by_alias=True, indent=2) + "\n")
    return 0


def files_below(directory: Path) -> Iterator[FoundFile]:
    """Regular files alone; one that goes while its directory is read is none."""
    for path in directory.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                yield FoundFile(path.relative_to(directory).as_posix(), path.stat().st_size)
        except FileNotFoundError:
            continue
