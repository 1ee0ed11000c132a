"""Decide which files make up a model, as transformers would.

The order of choice is that of ``PreTrainedModel.from_pretrained`` (transformers 5.23, ``modeling_utils``, function
``_get_resolved_checkpoint_files``): the file that config.json names as ``transformers_weights``, ``model.safetensors``,
the index of a sharded checkpoint. After these an adapter, and last the only safetensors file there is. A repository
without safetensors at its root is read from its GGUF files (``scanner.weights.gguf_files``). Everything
that is not chosen becomes a skip. Nothing here reads a weight file.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from scanner.errors import CorruptWeights, CouldNotConclude, HubAuditError, NothingToCompare
from scanner.paths import is_plain_path, shown
from scanner.records import FileEntry, RepoFacts, Skip
from scanner.weights.gguf_files import SUFFIX as GGUF_SUFFIX
from scanner.weights.gguf_files import choose_gguf
from scanner.weights.pickle_names import ADAPTER_BIN, PYTORCH, PYTORCH_INDEX, is_pickled
from scanner.weights.shards import MAX_INDEX_BYTES, read_index
from scanner.weights.strict_json import name_some

WEIGHTS: Final = "model.safetensors"
ADAPTER: Final = "adapter_model.safetensors"
PURIFICATION_PATCH: Final = "hubaudit-patch.safetensors"
"""What ``hubaudit purify`` leaves to undo it by: values from before, which no loader picks."""
SUFFIX: Final = ".safetensors"
INDEX_SUFFIX: Final = ".safetensors.index.json"
INDEX: Final = "model" + INDEX_SUFFIX

MAX_SHOWN_CHARS: Final = 300
MAX_SKIPS: Final = 20
"""Unread files that are named one by one; the rest are counted."""

OTHER_FORMATS: Final[Mapping[str, str]] = {
    ".bin": "PyTorch pickle",
    ".pt": "PyTorch pickle",
    ".pth": "PyTorch pickle",
    ".ckpt": "PyTorch pickle",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".joblib": "pickle",
    ".gguf": "GGUF",
    ".ggml": "GGML",
    ".llamafile": "llamafile",
    ".onnx": "ONNX",
    ".onnx_data": "ONNX",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".keras": "Keras",
    ".msgpack": "Flax msgpack",
    ".ot": "rust-bert",
    ".pb": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".npy": "NumPy",
    ".npz": "NumPy",
    ".nemo": "NeMo",
    ".engine": "TensorRT",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".distcp": "distributed checkpoint",
}
"""Suffixes of weight files that are not read yet, and what they are."""

_TRAINING_STATE: Final = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.(bin|pt|pth)")
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}")
_VARIANT: Final = re.compile(
    r"model\.(?:(?P<variant>[A-Za-z0-9_-]{1,40}?)\.safetensors|safetensors\.index\.(?P<of_index>[A-Za-z0-9_-]{1,40})\.json)"
)
"""As transformers writes ``variant=``: before the ending of a file, and before that of an index."""
_IN_SUBFOLDER: Final = (
    "the only folder with weights; loaders read it with subfolder=, and its own config.json is not read"
)
_PICKLED: Final = (PYTORCH, PYTORCH_INDEX)
_DISTRIBUTED: Final = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors", re.ASCII)

ReadSmallFile = Callable[[str, int], bytes]
"""Path in the repository and a limit in bytes → the whole file; raises CouldNotConclude when it is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The files to read, in the loader's order, and what is left out.

    ``shard_of`` maps tensor names to the file that the index gives for them; empty without an index.
    """

    files: tuple[FileEntry, ...]
    shard_of: Mapping[str, str]
    skips: tuple[Skip, ...]


def find_layout(facts: RepoFacts, read_small_file: ReadSmallFile) -> Layout:
    """Choose the weight files of a repository.

    Args:
        facts: the listing and config.json decide.
        read_small_file: reads the index of a sharded checkpoint.

    Raises:
        NothingToCompare: there are no weights.
        CouldNotConclude: there are weights, but in formats or places that are not read yet, or it is unclear which.
        CorruptWeights: the index or config.json lies about the files.
    """
    entries = {entry.path: entry for entry in facts.files}
    if layout := _gguf_layout(facts, entries):
        return layout
    chosen, notice = _choose(facts, entries)
    shard_of = read_index(chosen, read_small_file(chosen, MAX_INDEX_BYTES)) if _is_index(chosen) else {}
    if notice and notice[0].why == _IN_SUBFOLDER:
        folder = chosen.rpartition("/")[0]
        shard_of = {tensor: f"{folder}/{shard}" for tensor, shard in shard_of.items()}
    names = sorted(set(shard_of.values())) or [chosen]
    files = tuple(entries[name] for name in names if name in entries)
    if not files:
        raise CorruptWeights(
            f"The index {shown(chosen)} names {len(names)} files ({name_some(names)}) and none of them is there; "
            "ask its author to publish them."
        )
    unread = _missing_shards(chosen, shard_of, entries), _unread_files(entries, chosen, {chosen, *names})
    return Layout(files=files, shard_of=shard_of, skips=(*notice, *unread[0], *unread[1]))


def _gguf_layout(facts: RepoFacts, entries: Mapping[str, FileEntry]) -> Layout | None:
    """The layout of a repository whose only weights at the root are GGUF files; None for all others."""
    if (facts.config or {}).get("transformers_weights") is not None or any(
        path in _PICKLED or _is_safetensors_at_root(path) for path in entries
    ):
        return None
    names, notice = choose_gguf(entries)
    if not names:
        return None
    unread = [skip for skip in _unread_files(entries, names[0], set(names)) if not skip.what.endswith(GGUF_SUFFIX)]
    return Layout(files=tuple(entries[name] for name in names), shard_of={}, skips=(*notice, *unread))


def _choose(facts: RepoFacts, entries: Mapping[str, FileEntry]) -> tuple[str, tuple[Skip, ...]]:
    """The weight file or index, and a notice where the choice is not the usual one."""
    named = (facts.config or {}).get("transformers_weights")
    if named is not None:
        return _choose_named(named, entries)
    at_root = sorted(filter(_is_safetensors_at_root, entries))
    if facts.ref.path and any(_DISTRIBUTED.fullmatch(path) for path in at_root):
        raise CouldNotConclude(
            f"{facts.ref} holds a distributed checkpoint, which loaders prefer in a local folder and which is not read "
            f"yet; consolidate it into {WEIGHTS} first."
        )
    for usual in (WEIGHTS, INDEX, *_PICKLED, ADAPTER, ADAPTER_BIN):
        if usual in entries:
            return usual, ()
    variants = {
        match["variant"] or match["of_index"]: path
        for path in sorted(entries, reverse=True)
        if (match := _VARIANT.fullmatch(path)) and not _SHARD.search(path)
    }
    if len(variants) == 1:
        ((variant, path),) = variants.items()
        return path, (
            Skip(what=_shown(path), why=f"the only variant there is; loaders read it with variant={variant!r}"),
        )
    indexes = [path for path in at_root if path.endswith(INDEX_SUFFIX)]
    pickled = sorted(path for path in entries if "/" not in path and is_pickled(path) and not _is_state(path))
    if not at_root and len(pickled) == 1:
        return pickled[0], (Skip(what=_shown(pickled[0]), why=f"read in place of {WEIGHTS}, which is not there"),)
    if not at_root and not pickled and (nested := _in_subfolder(entries)):
        return nested, (Skip(what=_shown(nested), why=_IN_SUBFOLDER),)
    if len(indexes) != 1 and len(at_root) != 1:
        raise _no_choice(facts, entries, at_root)
    only = (indexes or at_root)[0]
    return only, (Skip(what=_shown(only), why=f"read in place of {WEIGHTS}, which is not there"),)


def _in_subfolder(entries: Mapping[str, FileEntry]) -> str | None:
    """The weights in the only folder that holds any under the usual names, as ``subfolder=`` would find them."""
    usual = (WEIGHTS, INDEX, *_PICKLED)
    folders = {path.rpartition("/")[0] for path in entries if "/" in path and _last_part(path) in usual}
    if len(folders) != 1:
        return None
    folder = folders.pop()
    return next(path for name in usual if (path := f"{folder}/{name}") in entries)


def _choose_named(named: object, entries: Mapping[str, FileEntry]) -> tuple[str, tuple[Skip, ...]]:
    if not isinstance(named, str) or not is_plain_path(named) or not named.endswith((SUFFIX, INDEX_SUFFIX)):
        raise CorruptWeights(
            "config.json names as transformers_weights something that is no safetensors file inside the repository; "
            "ask its author to correct that."
        )
    if named not in entries:
        raise CorruptWeights(
            f"config.json names {shown(named)} as transformers_weights and there is no such file; ask its author to "
            "publish it."
        )
    if named in {WEIGHTS, INDEX}:
        return named, ()
    return named, (Skip(what=_shown(named), why="config.json names it as transformers_weights, so it was read"),)


def _no_choice(facts: RepoFacts, entries: Mapping[str, FileEntry], at_root: Sequence[str]) -> HubAuditError:
    """Say why there is nothing to read."""
    if at_root:
        return CouldNotConclude(
            f"{facts.ref} holds {len(at_root)} safetensors files and none that loaders pick by themselves "
            f"({name_some(at_root)}); put the intended one into a folder as {WEIGHTS} and scan that."
        )
    nested = sorted(path for path in entries if "/" in path and path.endswith(SUFFIX))
    if nested:
        return CouldNotConclude(
            f"{facts.ref} keeps its weights in sub-folders ({name_some(nested)}), of which loaders take none by "
            "themselves; download the one you mean and scan that folder."
        )
    others = sorted(path for path in entries if _form(path) and not _is_state(path))
    if others:
        return CouldNotConclude(
            f"{facts.ref} has weights only in formats that are not read yet ({name_some(others)}); convert them to "
            "safetensors and scan that folder."
        )
    return NothingToCompare(f"{facts.ref} has no weights; name a repository or folder that holds {WEIGHTS}.")


def _missing_shards(index: str, shard_of: Mapping[str, str], entries: Mapping[str, FileEntry]) -> tuple[Skip, ...]:
    lost: dict[str, list[str]] = {}
    for tensor, shard in shard_of.items():
        if shard not in entries:
            lost.setdefault(shard, []).append(tensor)
    skips = [
        Skip(
            what=_shown(shard),
            why=f"{shown(index)} names it and it is not there; lost with it: {name_some(tensors)}",
            unread=True,
        )
        for shard, tensors in sorted(lost.items())
    ]
    return _bounded(skips, "missing shards")


def _unread_files(entries: Mapping[str, FileEntry], chosen: str, read: Collection[str]) -> tuple[Skip, ...]:
    """One skip for every other file that looks like weights."""
    reasons = ((path, _why_unread(path, chosen)) for path in sorted(entries) if path not in read)
    return _bounded([Skip(what=_shown(path), why=why) for path, why in reasons if why], "weight files")


def _why_unread(path: str, chosen: str) -> str | None:
    """The reason, or None when the file is no weight file."""
    if _is_state(path):
        return "training state, not weights; not read"
    if is_pickled(path):
        return f"loaders pick {shown(chosen)} instead; not read"
    if form := _form(path):
        return f"format not read yet ({form})"
    if path == PURIFICATION_PATCH or not path.endswith((SUFFIX, INDEX_SUFFIX)):
        return None
    if path == ADAPTER:
        return f"an adapter beside {shown(chosen)}, which loaders with peft put on top of it; not read"
    if "/" in path:
        return "in a sub-folder, not part of the model at the root; not read"
    return f"loaders pick {shown(chosen)} instead; not read"


def _is_safetensors_at_root(path: str) -> bool:
    return "/" not in path and path.endswith((SUFFIX, INDEX_SUFFIX)) and path != PURIFICATION_PATCH


def _is_index(path: str) -> bool:
    match = _VARIANT.fullmatch(path)
    return path.endswith(".index.json") or bool(match and match["of_index"])


def _is_state(path: str) -> bool:
    return _TRAINING_STATE.fullmatch(_last_part(path)) is not None


def _form(path: str) -> str | None:
    return OTHER_FORMATS.get(PurePosixPath(path).suffix.lower())


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


def _shown(path: str) -> str:
    return path if len(path) <= MAX_SHOWN_CHARS else path[:MAX_SHOWN_CHARS] + "…"


def _bounded(skips: list[Skip], what: str) -> tuple[Skip, ...]:
    if len(skips) <= MAX_SKIPS:
        return tuple(skips)
    rest = Skip(
        what=f"{len(skips) - MAX_SKIPS:,} more {what}",
        why="not listed one by one; not read",
        unread=any(skip.unread for skip in skips),
    )
    return (*skips[:MAX_SKIPS], rest)
