"""An image written by hand follows the OCI image layout."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from local_cluster import versions
from local_cluster.image_store import complete_digest, pause_image


def test_an_archive_is_a_consistent_oci_layout(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"program")
    archive = pause_image(program, tmp_path / "pause.tar")
    with tarfile.open(archive) as content:
        files = {member.name: content.extractfile(member).read() for member in content.getmembers()}  # type: ignore[union-attr]
    for name, blob in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(blob).hexdigest() == name.rpartition("/")[2]
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == versions.PAUSE_IMAGE
    manifest = json.loads(files[f"blobs/{entry['digest'].replace(':', '/')}"])
    config = json.loads(files[f"blobs/{manifest['config']['digest'].replace(':', '/')}"])
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert not (tmp_path / "pause.layer").exists()


HEADER = "REF TYPE DIGEST STATUS SIZE UNPACKED\n"
CHECKS = [
    ("ready", "localhost/a:1 type sha256:aa complete (2/2) 10.0 MiB/10.0 MiB true\n", "sha256:aa"),
    ("not unpacked", "localhost/a:1 type sha256:aa complete (2/2) 10.0 MiB/10.0 MiB false\n", None),
    ("a layer is missing", "localhost/a:1 type sha256:aa incomplete (1/2) 1.0 MiB/10.0 MiB true\n", None),
    ("its manifest is missing", "localhost/a:1 type sha256:aa error - false\n", None),
    ("not there", "", None),
]


@pytest.mark.parametrize(("line", "digest"), [case[1:] for case in CHECKS], ids=[case[0] for case in CHECKS])
def test_only_a_complete_image_counts(line: str, digest: str | None) -> None:
    assert complete_digest(HEADER + line) == digest
