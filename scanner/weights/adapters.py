"""PEFT adapters: which tensors of the base they change, found from the names and shapes of the factors alone.

A *target* is a tensor of the base as the adapter leaves it. Its factors are named after the module with
``base_model.model.`` in front: ``lora_A`` ``[r, in]``, ``lora_B`` ``[out, r]`` (tables of tokens:
``lora_embedding_A`` ``[r, tokens]``, ``lora_embedding_B`` ``[dim, r]``), ``lora_E`` ``[r, 1]`` for AdaLoRA,
``lora_magnitude_vector`` ``[out]`` for DoRA. Everything else replaces a tensor of the base whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scanner.paths import shown
from scanner.records import RepoFacts, Skip, TensorMeta
from scanner.weights.adapter_config import AdapterConfig, read_adapter_config
from scanner.weights.derived import MAX_WHOLE_BYTES
from scanner.weights.dtypes import is_float, item_bits
from scanner.weights.source import WeightSource

ADAPTER_FILES: Final = frozenset({"adapter_model.safetensors", "adapter_model.bin"})
_PREFIX: Final = "base_model.model."
_PARTS: Final[Mapping[str, str]] = {
    "lora_A.weight": "A",
    "lora_A": "A",
    "lora_B.weight": "B",
    "lora_B": "B",
    "lora_embedding_A": "table_A",
    "lora_embedding_B": "table_B",
    "lora_E": "E",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_B.bias": "bias_delta",
    "token_adapter.trainable_tokens_delta": "tokens",
    "trainable_tokens_delta": "tokens",
}
"""End of a name → what it is. peft drops the adapter's own name when it saves."""
_FACTORS: Final = frozenset({"A", "B", "table_A", "table_B", "E", "magnitude"})
_MARKS: Final = ("lora_", "trainable_tokens", "ranknum", "original_module")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One tensor of the base as the adapter leaves it.

    ``name`` and ``shape`` are those expected in the base. ``down`` ``[rank, …]`` and ``up`` ``[…, rank]`` are the
    stored factors, None where the tensor is only replaced; with ``flipped`` the stored weight is ``(up @ down)ᵀ``.
    ``stored`` is a tensor of the adapter that takes the base's place before anything is added; ``token_rows`` are
    the rows that ``tokens`` holds instead. ``added`` is a vector that is added, times ``scale``.
    """

    name: str
    shape: tuple[int, ...]
    scale: float = 1.0
    flipped: bool = False
    down: TensorMeta | None = None
    up: TensorMeta | None = None
    gains: TensorMeta | None = None
    magnitude: TensorMeta | None = None
    stored: TensorMeta | None = None
    tokens: TensorMeta | None = None
    token_rows: tuple[int, ...] = ()
    added: TensorMeta | None = None

    @property
    def low_rank(self) -> bool:
        """Whether the delta is ``scale · up @ down`` and nothing else."""
        return self.up is not None and self.magnitude is None and self.stored is None and self.tokens is None

    @property
    def held(self) -> tuple[TensorMeta, ...]:
        """The parts that every block needs in full."""
        parts = (self.down, self.up, self.gains, self.magnitude, self.tokens, self.added)
        return tuple(part for part in parts if part is not None)

    @property
    def meta(self) -> TensorMeta:
        """The tensor as a source offers it: float64 when it is computed, so that small deltas keep their digits."""
        main = self.up or self.tokens or self.added or self.stored
        assert main is not None
        dtype = "F64" if self.held else main.dtype
        return replace(main, name=self.name, shape=self.shape, dtype=dtype)

    @property
    def may_turn(self) -> bool:
        """Whether the factors also describe the transposed matrix (Conv1D layers say so only in the config)."""
        return self.down is not None and len(self.shape) == 2 and self.stored is None and self.tokens is None

    def turned(self) -> "Target":
        """The same factors for a weight that lies the other way round."""
        return replace(self, shape=self.shape[::-1], flipped=not self.flipped)


class _Unusable(Exception):  # noqa: N818
    """Why a module's parts cannot be used."""


def is_adapter(source: WeightSource) -> bool:
    """Whether the files that were chosen are a PEFT adapter's."""
    return bool(source.table) and all(meta.file in ADAPTER_FILES for meta in source.table.values())


def read_targets(facts: RepoFacts, source: WeightSource) -> tuple[tuple[Target, ...], tuple[Skip, ...]]:
    """Find what an adapter changes; nothing is read but the table.

    Args:
        facts: holds adapter_config.json.
        source: the opened adapter.

    Returns:
        The targets in the order of the modules, and an unread skip for each module whose parts do not fit together.

    Raises:
        CouldNotConclude: the configuration is missing, of an unknown kind or impossible.
    """
    config = read_adapter_config(facts.adapter_config, str(facts.ref))
    modules, replaced, skips = _sorted_parts(source.table.values())
    targets: dict[str, Target] = {}
    for module, parts in modules.items():
        try:
            for target in _targets_of(module, parts, replaced, config):
                targets[target.name] = target
        except (_Unusable, ValueError) as error:
            skips.append(Skip(what=module, why=f"The adapter's parts cannot be used: {error}.", unread=True))
    for name, meta in replaced.items():
        targets.setdefault(name, Target(name=name, shape=meta.shape, stored=meta))
    return tuple(targets.values()), tuple(skips)


def _sorted_parts(
    table: Iterable[TensorMeta],
) -> tuple[dict[str, dict[str, TensorMeta]], dict[str, TensorMeta], list[Skip]]:
    """Factors by module and part; whole tensors by the name that they replace; what is neither."""
    modules: dict[str, dict[str, TensorMeta]] = {}
    replaced: dict[str, TensorMeta] = {}
    skips = []
    for meta in table:
        name = meta.name.removeprefix(_PREFIX).replace(".default.", ".").removesuffix(".default")
        found = next(
            ((end, part) for end, part in _PARTS.items() if name.endswith(f".{end}")),
            None,
        )
        if found is not None:
            modules.setdefault(name.removesuffix(f".{found[0]}"), {})[found[1]] = meta
        elif any(mark in name for mark in _MARKS):
            skips.append(Skip(what=meta.name, why="a part of an adapter that is not known", unread=True))
        else:
            replaced[name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = meta
    return modules, replaced, skips


def _targets_of(
    module: str, parts: Mapping[str, TensorMeta], replaced: Mapping[str, TensorMeta], config: AdapterConfig
) -> Iterable[Target]:
    """The targets of one module, its weight and its bias.

    Raises:
        _Unusable: parts are missing or do not fit together.
        ValueError: the configuration's patterns cannot be evaluated.
    """
    for part in parts.values():
        if not is_float(part.dtype):
            raise _Unusable(f"{shown(part.name)} holds {part.dtype} in place of floats")
        if part.count * item_bits(part.dtype) > 8 * MAX_WHOLE_BYTES:
            raise _Unusable(f"{shown(part.name)} is larger than the {MAX_WHOLE_BYTES:,} bytes that a factor may have")
    weight = f"{module}.weight"
    if _FACTORS & parts.keys():
        target = _factored(module, parts, config)
        yield _with_tokens(module, replace(target, stored=_replaced(weight, target.shape, replaced)), parts, config)
    elif "tokens" in parts:
        tokens = parts["tokens"]
        rows = config.rows_of(module)
        shape = (max(rows, default=0) + 1, tokens.rows_cols[1])
        yield _with_tokens(module, Target(name=weight, shape=shape), parts, config)
    if "bias_delta" in parts:
        bias = parts["bias_delta"]
        length = (bias.count,)
        stored = _replaced(f"{module}.bias", length, replaced)
        yield Target(name=f"{module}.bias", shape=length, scale=config.scale_of(module), added=bias, stored=stored)


def _replaced(name: str, shape: tuple[int, ...], replaced: Mapping[str, TensorMeta]) -> TensorMeta | None:
    stored = replaced.get(name)
    if stored is not None and (stored.shape != shape or not is_float(stored.dtype)):
        raise _Unusable(f"{shown(stored.name)} has another shape than its factors stand for")
    return stored


def _factored(module: str, parts: Mapping[str, TensorMeta], config: AdapterConfig) -> Target:
    """The target behind a pair of factors."""
    is_table = "table_A" in parts or "table_B" in parts
    down, up = (parts.get(f"table_{end}" if is_table else end) for end in ("A", "B"))
    if down is None or up is None:
        raise _Unusable("one of the two factors is missing")
    rank = down.shape[0] if len(down.shape) >= 2 else 0
    if rank < 1 or len(up.shape) < 2 or up.shape[1] != rank or up.rows_cols[1] != rank:
        raise _Unusable(f"factors of the shapes {list(down.shape)} and {list(up.shape)} have no product")
    if not config.fits(module, rank):
        declared = config.rank if config.family == "ADALORA" else config.rank_of(module)
        raise _Unusable(f"adapter_config.json gives it rank {declared}, the factors have rank {rank}")
    gains, magnitude = parts.get("E"), parts.get("magnitude")
    if (config.family == "ADALORA") != (gains is not None) or (gains is not None and gains.count != rank):
        raise _Unusable("its singular values do not belong to its factors")
    flipped = is_table or (config.transposed and len(down.shape) == 2)
    shape = (up.shape[0], *down.shape[1:])
    if magnitude is not None and (magnitude.count != up.shape[0] or len(shape) != 2):
        raise _Unusable("its magnitudes do not belong to its factors, or to a convolution, which is not followed yet")
    if config.magnitudes != (magnitude is not None):
        raise _Unusable("adapter_config.json and the file disagree on whether it has magnitudes (DoRA)")
    return Target(
        name=f"{module}.weight",
        shape=shape[::-1] if flipped else shape,
        scale=config.scale_of(module),
        flipped=flipped,
        down=down,
        up=up,
        gains=gains,
        magnitude=magnitude,
    )


def _with_tokens(module: str, target: Target, parts: Mapping[str, TensorMeta], config: AdapterConfig) -> Target:
    """The target with the rows of trained tokens, where there are any."""
    tokens = parts.get("tokens")
    if tokens is None:
        return target
    rows = config.rows_of(module)
    distinct = len(set(rows)) == len(rows) and min(rows, default=0) >= 0
    if (
        not distinct
        or tokens.rows_cols != (len(rows), target.shape[1])
        or max(rows, default=0) > np.iinfo(np.int32).max
    ):
        raise _Unusable(f"it holds {tokens.rows_cols[0]} trained tokens and adapter_config.json names {len(rows)}")
    return replace(target, tokens=tokens, token_rows=rows)
