"""What a table of tensors says about a checkpoint before any weight is read: size, formats, token rows, LoRA ranks."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from scanner.card_context import Stored
from scanner.records import TensorMeta
from scanner.roles import role_of
from scanner.weights.adapters import ADAPTER_FILES

MAX_TARGETS = 64
"""Module names of an adapter that are kept."""
_DOWN = (".lora_A.weight", ".lora_A.default.weight", ".lora_A", ".lora_embedding_A")


def describe_table(table: Iterable[TensorMeta], config: Mapping[str, Any] | None = None) -> Stored:
    """Sum up a table of tensors. Reads nothing.

    Args:
        table: the tensors of one checkpoint.
        config: the parsed config.json, which tells token tables in doubtful cases.
    """
    dtypes: Counter[str] = Counter()
    schemes: Counter[str] = Counter()
    tokens: tuple[str, int] | None = None
    ranks: set[int] = set()
    targets: set[str] = set()
    adapter = False
    for meta in table:
        dtypes[meta.dtype] += meta.count
        if meta.scheme:
            schemes[meta.scheme] += meta.count
        end = next((end for end in _DOWN if meta.name.endswith(end)), None)
        adapter = adapter or meta.file.rpartition("/")[2] in ADAPTER_FILES
        if end is not None and len(meta.shape) >= 2:
            ranks.add(meta.shape[0])
            targets.add(meta.name.removesuffix(end).rpartition(".")[2])
        elif role_of(meta.name, meta.shape, config) == "embedding" and meta.rows_cols[0] > (tokens[1] if tokens else 1):
            tokens = (meta.name, meta.rows_cols[0])
    return Stored(
        parameters=sum(dtypes.values()),
        dtypes=dict(dtypes),
        schemes=dict(schemes),
        token_rows=tokens,
        adapter=adapter,
        ranks=tuple(sorted(ranks)),
        targets=tuple(sorted(targets)[:MAX_TARGETS]),
    )
