"""Adapters as files, and as the engine knows them."""

from finetune_operator.contract.base import Message

# Header of a load request by which the server's guard knows what the operator expects to find in the directory.
ADAPTER_DIGEST_HEADER = "x-finetune-adapter-digest"


class AdapterFile(Message):
    """One file of a directory of weights."""

    name: str
    size_bytes: int
    sha256: str


class AdapterManifest(Message):
    """`manifest.json` beside the adapter's files, written before the directory gets its final name."""

    base_model_name: str
    rank: int
    files: tuple[AdapterFile, ...]
    digest: str


class Adapter(Message):
    """One adapter as the engine knows it; `name` is the version's immutable served name."""

    name: str
    path: str
    digest: str


class AdapterList(Message):
    """`ADAPTERS_FILE`: what a starting server loads before it becomes Ready."""

    base_model_name: str
    max_lora_rank: int
    adapters: tuple[Adapter, ...] = ()
