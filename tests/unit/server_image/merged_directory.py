"""A directory of merged weights on a volume, as the trainer leaves it or as somebody else would like it."""

import hashlib
import json
import struct
from pathlib import Path

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.artifacts import MergedWeights
from finetune_operator.core.artifacts import MANIFEST_NAME
from finetune_operator.core.merged_weights import weights_manifest

SERVER_IMAGE = Path(__file__).parents[3] / "server_image"
ADAPTER = "sha256:" + "a" * 64
HEADER = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + bytes(128)


def make_weights(root: Path) -> Path:
    """A volume's root with `job/merged` in it, not published yet."""
    merged = root / "job" / "merged"
    merged.mkdir(parents=True)
    (merged / "config.json").write_text('{"model_type": "llama"}')
    (merged / "tokenizer_config.json").write_text("{}")
    (merged / "model.safetensors").write_bytes(WEIGHTS)
    return root


def publish(directory: Path) -> str:
    """A manifest that agrees with whatever lies there: its author may be the one who put it there."""
    files = [
        AdapterFile(
            name=file.name, size_bytes=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest()
        )
        for file in sorted(directory.iterdir())
        if file.is_file() and not file.is_symlink() and file.name != MANIFEST_NAME
    ]
    manifest = weights_manifest("tiny-llama", ADAPTER, files)
    (directory / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True))
    return manifest.digest


def expected(root: Path, digest: str, path: str = "{root}/job/merged") -> MergedWeights:
    return MergedWeights(
        name="plato-v1",
        path=path.format(root=root),
        digest=digest,
        base_model_name="tiny-llama",
        adapter_digest=ADAPTER,
    )
