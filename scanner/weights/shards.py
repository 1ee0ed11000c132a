"""The index of a sharded checkpoint, and what to make of it when the shards tell another story.

Loaders take the set of file names from the index, read every tensor of each file, and ignore which file the index
gives for a tensor (transformers 5.23, ``get_checkpoint_shard_files``). The table follows the files; where the index
says otherwise, a skip reports it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from scanner.errors import CorruptWeights
from scanner.paths import is_plain_path, shown
from scanner.records import Skip, TensorMeta
from scanner.weights.header import MAX_TENSORS, Header
from scanner.weights.strict_json import JsonError, JsonLimits, check_text, load_object, name_some

MAX_INDEX_BYTES: Final = 64 << 20
"""Six times the index of the largest public checkpoint."""

_SUFFIX: Final = ".safetensors"
_PICKLED: Final = ".bin.index.json"
_LIMITS: Final = JsonLimits(objects=1_000, lists=1_000, commas=2 * MAX_TENSORS)


def read_index(path: str, raw: bytes) -> dict[str, str]:
    """Tensor name → shard, as the index says.

    Args:
        path: the index in the repository, for messages.
        raw: the whole file.

    Raises:
        CorruptWeights: not a JSON object with a ``weight_map`` of file names, a tensor named twice, or a shard that
            is no safetensors file (PyTorch file, for an index of such) inside the repository.
    """
    try:
        shard_of = _weight_map(load_object(raw, _LIMITS, sizes_only=False), pickled=path.endswith(_PICKLED))
    except JsonError as lie:
        raise CorruptWeights(f"The index {shown(path)} {lie}; ask its author to publish it again.") from lie
    return shard_of


def collect_headers(read: Iterable[tuple[str, Header]]) -> dict[str, Header]:
    """Gather the headers of a checkpoint, by file in the loader's order, however they arrive.

    Raises:
        CorruptWeights: they hold more than ``MAX_TENSORS`` tensors together.
    """
    headers: dict[str, Header] = {}
    count = 0
    for file, header in read:
        headers[file] = header
        count += len(header.tensors) + len(header.unread)
        if count > MAX_TENSORS:
            raise CorruptWeights(f"The weights declare more than {MAX_TENSORS:,} tensors, which no real model has.")
    return dict(sorted(headers.items()))


def join_tables(
    headers: Mapping[str, Header], shard_of: Mapping[str, str]
) -> tuple[dict[str, TensorMeta], tuple[Skip, ...]]:
    """Put the headers of all files into one table.

    A tensor that lies in two files is left out, since it depends on the loader which one counts.

    Args:
        headers: by file, in the loader's order.
        shard_of: what the index says; empty without an index.

    Returns:
        The table in file order, and the skips: those of the headers, then what the index and the files disagree on.
    """
    home: dict[str, str] = {}
    table: dict[str, TensorMeta] = {}
    twice: dict[str, None] = {}
    for file, header in headers.items():
        metas = {tensor.name: tensor for tensor in header.tensors}
        for name in (*metas, *header.unread):
            if home.setdefault(name, file) != file:
                twice[name] = None
        table.update(metas)
    for name in twice:
        table.pop(name, None)
    skips = [skip for header in headers.values() for skip in header.skips]
    if twice:
        why = "in two files, so the loader decides which one counts"
        skips.append(Skip(what=name_some(list(twice)), why=why, unread=True))
    return table, (*skips, *_disagreements(shard_of, home, headers))


def _weight_map(index: Mapping[str, object], *, pickled: bool) -> dict[str, str]:
    suffix, kind = (".bin", "PyTorch file") if pickled else (_SUFFIX, "safetensors file")
    declared = index.get("weight_map")
    if not isinstance(declared, dict) or not declared:
        raise JsonError("has no weight_map with tensors in it")
    shards = set()
    for name, shard in declared.items():
        if not isinstance(shard, str):
            raise JsonError(f"maps the tensor {shown(name)} to something that is not a file name")
        check_text(name)
        shards.add(shard)
    for shard in shards:
        check_text(shard)
        if not is_plain_path(shard) or not shard.endswith(suffix):
            raise JsonError(f"maps tensors to {shown(shard)}, which is no {kind} inside the repository")
    return declared


def _disagreements(shard_of: Mapping[str, str], home: Mapping[str, str], headers: Mapping[str, Header]) -> list[Skip]:
    if not shard_of:
        return []
    absent = [name for name, shard in shard_of.items() if shard in headers and name not in home]
    moved = [name for name, file in home.items() if shard_of.get(name, file) != file]
    unlisted = [name for name in home if name not in shard_of]
    reasons = (
        (absent, "the index names it, but no file holds it"),
        (moved, "the index gives another file for it; read where it lies, as loaders do"),
        (unlisted, "in a file but not in the index; read all the same, as loaders do"),
    )
    return [Skip(what=name_some(names), why=why, unread=names is absent) for names, why in reasons if names]
