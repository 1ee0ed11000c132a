"""The safetensors checkpoint of a local folder: its files, its table, and rows of it as torch tensors.

Everything is read with plain file reads of bounded size, so that memory stays flat however large the checkpoint is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.purify.job import ModelKind
from scanner.errors import CouldNotConclude, NothingToCompare
from scanner.facts import collect
from scanner.folder import read_file
from scanner.hub import Hub
from scanner.paths import shown
from scanner.records import RepoFacts, RepoRef, Rows, TensorMeta
from scanner.weights.dtypes import is_float
from scanner.weights.layout import SUFFIX, find_layout
from scanner.weights.safetensors import LocalSafetensors

if TYPE_CHECKING:
    import torch

PANEL_BYTES: Final = 16 << 20
"""How much of a tensor is held at once, in bytes; a single row may be larger."""
_ADAPTER: Final = "adapter_model.safetensors"
_ENDINGS: Final[tuple[tuple[str, ModelKind], ...]] = (
    ("ForSequenceClassification", "classifier"),
    ("ForCausalLM", "causal"),
    ("LMHeadModel", "causal"),
    ("ForImageClassification", "image"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model folder with safetensors weights.

    ``files`` are the weight files that a loader reads, paths below ``folder``; ``table`` has every tensor whose
    elements fill whole bytes, by the name that the file gives it.
    """

    folder: Path
    facts: RepoFacts
    files: tuple[str, ...]
    table: Mapping[str, TensorMeta]

    def rows(self, name: str, rows: Rows) -> "torch.Tensor":
        """Read rows (half-open) of a tensor: ``[rows, ...]`` in the stored dtype; a vector is one row, read whole.

        Raises:
            CouldNotConclude: the file cannot be read, or its dtype is none of torch's.
        """
        meta = self.table[name]
        start, end = span_of(meta, rows)
        try:
            with (self.folder / meta.file).open("rb") as file:
                file.seek(start)
                raw = bytearray(file.read(end - start))
        except OSError as error:
            raise CouldNotConclude(f"{shown(meta.file)} cannot be read: {error.strerror}; check the folder.") from error
        if len(raw) != end - start:
            raise CouldNotConclude(f"{shown(meta.file)} became shorter while it was read; run again.")
        return tensor_of(raw, meta, rows)

    def whole(self, name: str) -> "torch.Tensor":
        """Read a whole tensor in its own shape and dtype."""
        meta = self.table[name]
        return self.rows(name, (0, meta.rows_cols[0])).reshape(meta.shape)

    def panels(self, name: str) -> Iterator[Rows]:
        """Cut a tensor into runs of rows of about ``PANEL_BYTES``."""
        yield from panels_of(self.table[name])


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a folder's weights.

    Raises:
        NothingToCompare: there are no weights.
        CorruptWeights: a header or an index lies.
        CouldNotConclude: the weights are an adapter, quantised, or in another format than safetensors.
    """
    facts = collect(RepoRef(path=str(folder)), Hub())
    layout = find_layout(facts, lambda path, limit: read_file(str(folder), path, limit_bytes=limit))
    files = tuple(entry.path for entry in layout.files)
    for file in files:
        if not file.endswith(SUFFIX):
            raise CouldNotConclude(
                f"{facts.ref.name} keeps its weights in {shown(file)}; purification writes safetensors only, so load "
                "the model and save it with save_pretrained first."
            )
    if _ADAPTER in files:
        raise CouldNotConclude(
            f"{facts.ref.name} is an adapter; merge it into its base (peft: merge_and_unload) and purify the result."
        )
    if (facts.config or {}).get("quantization_config") is not None:
        raise CouldNotConclude(
            f"{facts.ref.name} is quantised; purify the model that it was quantised from, then quantise again."
        )
    missing = [skip for skip in layout.skips if skip.unread]
    if missing:
        raise CouldNotConclude(f"{facts.ref.name} is not complete: {missing[0].what} ({missing[0].why}).")
    with LocalSafetensors(facts.ref, layout) as source:
        table = source.table
    if not any(is_float(meta.dtype) for meta in table.values()):
        raise NothingToCompare(f"{facts.ref.name} holds no weights that could be changed.")
    return Checkpoint(folder=folder, facts=facts, files=files, table=table)


def span_of(meta: TensorMeta, rows: Rows) -> tuple[int, int]:
    """The bytes of some rows in the tensor's file: start included, end excluded."""
    height, _ = meta.rows_cols
    if not 0 <= rows[0] <= rows[1] <= height:
        raise ValueError(f"rows {rows} lie outside of {height}")
    per_row = (meta.end - meta.start) // height if height else 0
    return meta.start + rows[0] * per_row, meta.start + rows[1] * per_row


def panels_of(meta: TensorMeta) -> Iterator[Rows]:
    """Cut a tensor into runs of rows of about ``PANEL_BYTES``."""
    height, _ = meta.rows_cols
    per_row = max(1, (meta.end - meta.start) // max(1, height))
    step = max(1, PANEL_BYTES // per_row)
    for start in range(0, height, step):
        yield start, min(height, start + step)


def tensor_of(raw: bytearray, meta: TensorMeta, rows: Rows) -> "torch.Tensor":
    """See bytes as rows of a tensor; the result shares their memory.

    Raises:
        CouldNotConclude: torch has no such dtype.
    """
    import torch

    dtype = torch_dtypes().get(meta.dtype)
    if dtype is None:
        raise CouldNotConclude(f"The tensor {shown(meta.name)} is stored as {shown(meta.dtype)}, which is not changed.")
    shape = meta.shape if len(meta.shape) < 2 else (rows[1] - rows[0], *meta.shape[1:])
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=torch.uint8).view(dtype).reshape(shape)


@cache
def torch_dtypes() -> Mapping[str, Any]:
    """The torch dtype behind each float dtype of safetensors."""
    import torch

    return {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }


def kind_of(config: Any) -> ModelKind:
    """Return what kind of model a config.json describes."""
    names = (config or {}).get("architectures")
    first = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    for ending, kind in _ENDINGS:
        if first.endswith(ending):
            return kind
    return "other"
