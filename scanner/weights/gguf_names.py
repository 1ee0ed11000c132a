"""Give the tensors of a GGUF file the names and the order of the model that it is compared with.

The converter (``convert_hf_to_gguf.py`` of llama.cpp) renames tensors by the ``gguf`` package's own table and, for
some architectures, rearranges them: rotary halves of queries and keys are interleaved, transposed layers of GPT-2 are
turned, Gemma's norms have 1 added, experts are stacked. All of that is undone here.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gguf.constants import MODEL_ARCH_NAMES
from gguf.tensor_mapping import get_tensor_name_map

from scanner.errors import CouldNotConclude
from scanner.records import F64, Rows, Skip, TensorMeta
from scanner.weights.derived import MAX_WHOLE_BYTES, DerivedSource, Made
from scanner.weights.dtypes import decode, is_float, storage_dtype
from scanner.weights.gguf import MAX_EXPERTS, GgufSource, expert_name
from scanner.weights.source import Block, BlockRequest, WeightSource

MAX_BLOCKS: Final = 1024
"""Most layers for which names are built; the deepest released networks have fewer than 256."""
_PREFIXES: Final = ("", "model.", "transformer.")
"""Put in front of names that lack them, as the converter does for checkpoints of bare encoders and decoders."""
_SUFFIXES: Final = (".weight", ".bias")
_EXPERT: Final = re.compile(r"\.experts\.(\d{1,4})(?=\.)")
_TURNED: Final = re.compile(r"\.(c_attn|c_proj|c_fc|q_attn)\.weight$")
"""Layers that GPT-2 stores with inputs first (transformers' ``Conv1D``)."""
_TURNING_ARCHITECTURES: Final = frozenset({"gpt2", "jais"})
_ONE_ADDED: Final = frozenset({"gemma", "gemma2", "gemma3", "gemma-embedding"})
"""Architectures whose norms count from 1 in the file and from 0 in the model; asked when no norm can be read."""
_STACK: Final = re.compile(r"(?P<module>.+)\.experts\.(?P<leaf>gate_up_proj|gate_proj|up_proj|down_proj)(\.weight)?")
_NORMS_LOOKED_AT: Final = 8
_HALF: Final = 0.5
_CONSTANTS: Final = re.compile(r"rope_(freqs|factors_long|factors_short)\.weight$")
_QUERY, _KEY = ".attn_q.", ".attn_k."
_HEADS_LOOKED_AT: Final = 2

Undo = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def named_as(source: GgufSource, other: WeightSource) -> WeightSource:
    """Return the source under the names of the other one, in its order of rows and columns.

    A tensor to which nothing there corresponds keeps its GGUF name. Whether queries and keys were interleaved is
    read off a few of their rows, since the same architecture name is used by converters that do it and that do not.

    Args:
        source: the open GGUF files.
        other: the checkpoint it is compared with, open; a few rows of it are read.
    """
    architecture = source.facts.get("general.architecture")
    known = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        why = "its architecture is unknown to the gguf package, so its tensors keep their names"
        return DerivedSource(source, recipes=(), kept=source.table, skips=(Skip(what="names of the GGUF", why=why),))
    blocks = source.facts.get(f"{architecture}.block_count", 0)
    names = get_tensor_name_map(
        known[architecture], blocks if type(blocks) is int and 0 <= blocks <= MAX_BLOCKS else MAX_BLOCKS
    )
    found = dict(_partners(source.table, other.table, lambda key: names.get_name(key, _SUFFIXES)))
    heads = _Heads.of(source.facts, str(architecture))
    interleaved = heads is not None and _is_interleaved(found, heads, source, other)
    one_added = _has_one_added(found, str(architecture), source, other)
    recipes = [
        _recipe(source.table[at.name], name, str(architecture), heads if interleaved else None, one_added=one_added)
        for name, at in found.items()
    ]
    used = {at.name for at in found.values()}
    constants = [name for name in source.table if name not in used and _CONSTANTS.search(name)]
    kept = [name for name in source.table if name not in used and name not in constants]
    recipes += [_Moved(source.table[n], "lm_head.weight", None) for n in kept if n == "output.weight"]
    skips = tuple(Skip(what=name, why="constant that the model computes for itself") for name in constants)
    kept = [name for name in kept if name != "output.weight"]
    return DerivedSource(source, recipes=[r for r in recipes if r], kept=kept, skips=skips)


@dataclass(frozen=True, slots=True)
class _At:
    """Where a tensor lies."""

    name: str


@dataclass(frozen=True, slots=True)
class _Heads:
    """Attention heads of queries and of keys."""

    query: int
    key: int

    @classmethod
    def of(cls, facts: Mapping[str, Any], architecture: str) -> "_Heads | None":
        """The counts, None where they are not given as single numbers."""
        query = facts.get(f"{architecture}.attention.head_count")
        key = facts.get(f"{architecture}.attention.head_count_kv", query)
        if type(query) is not int or type(key) is not int or query < 1 or key < 1:
            return None
        return cls(query, key)

    def count_for(self, name: str) -> int:
        return self.query if _QUERY in name else self.key


def _partners(
    table: Mapping[str, TensorMeta], other: Mapping[str, TensorMeta], translate: Callable[[str], str | None]
) -> Iterator[tuple[str, _At]]:
    """Yield (name there, place here) for every tensor of the other checkpoint that has a partner; each is used once."""
    taken: set[_At] = set()
    for name in _unstacked(other):
        expert = _EXPERT.search(name)
        key = _EXPERT.sub(".experts", name, count=1) if expert else name
        spellings = [prefix + key for prefix in _PREFIXES]
        spellings.append(key.partition(".")[2])
        for spelling in spellings:
            stored = translate(spelling)
            if stored is not None and expert and expert_name(stored, int(expert[1])) in table:
                stored = expert_name(stored, int(expert[1]))
            if stored is None or stored not in table:
                continue
            at = _At(stored)
            if at not in taken:
                taken.add(at)
                yield name, at
            break


def _unstacked(other: Mapping[str, TensorMeta]) -> Iterator[str]:
    """The names of the other checkpoint; of a stack of experts those that its parts have where they lie apart."""
    for name, meta in other.items():
        stack = _STACK.fullmatch(name) if len(meta.shape) == 3 and meta.shape[0] <= MAX_EXPERTS else None
        if stack is None:
            yield name
            continue
        leaves = ("gate_proj", "up_proj") if stack["leaf"] == "gate_up_proj" else (stack["leaf"],)
        for expert in range(meta.shape[0]):
            for leaf in leaves:
                yield f"{stack['module']}.experts.{expert}.{leaf}.weight"


def _recipe(
    stored: TensorMeta, name: str, architecture: str, heads: _Heads | None, *, one_added: bool
) -> "_Moved | _Turned | _Interleaved":
    if heads is not None and (_QUERY in stored.name or _KEY in stored.name):
        count = heads.count_for(stored.name)
        rows = stored.shape[0]
        if rows % (2 * count) == 0:
            return _Interleaved(stored, name, rows // count)
    if architecture in _TURNING_ARCHITECTURES and _TURNED.search(name) and len(stored.shape) == 2:
        return _Turned(stored, name)
    if one_added and name.endswith("norm.weight") and stored.dtype == "F32":
        return _Moved(stored, name, lambda values: values - np.float32(1))
    return _Moved(stored, name, None)


class _Moved:
    """A tensor under another name, its values put right where need be."""

    whole: tuple[BlockRequest, ...] = ()

    def __init__(self, stored: TensorMeta, name: str, undo: Undo | None) -> None:
        self.meta = replace(stored, name=name)
        self._stored = stored
        self._undo = undo

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        return (BlockRequest(name=self._stored.name, rows=rows),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        del whole, rows
        block = parts[0]
        return (self._undo(block.values) if self._undo else block.values), block.coding


class _Turned:
    """A transposed tensor; turned as a whole."""

    def __init__(self, stored: TensorMeta, name: str) -> None:
        self.meta = replace(stored, name=name, shape=stored.shape[::-1])
        self.whole: tuple[BlockRequest, ...] = (BlockRequest(name=stored.name, rows=(0, stored.shape[0])),)

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        del rows
        return ()

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        del parts
        return _rearranged(whole[0], lambda values: values.T[rows[0] : rows[1]], whole_rows=False)


class _Interleaved:
    """Rows of queries or keys, whose rotary halves the converter has interleaved within each head.

    Row (head, half, i) is stored as row (head, i, half): ``LlamaModel.permute`` of the converter.
    """

    whole: tuple[BlockRequest, ...] = ()

    def __init__(self, stored: TensorMeta, name: str, head_rows: int) -> None:
        self.meta = replace(stored, name=name)
        self._stored = stored
        self._head_rows = head_rows

    @property
    def _unit(self) -> int:
        """Rows that have to be read together; biases are a single row of columns."""
        return self._head_rows if len(self._stored.shape) > 1 else 1

    def parts(self, rows: Rows) -> tuple[BlockRequest, ...]:
        """All heads that these rows are part of."""
        first, end = rows[0] // self._unit * self._unit, -(-rows[1] // self._unit) * self._unit
        return (BlockRequest(name=self._stored.name, rows=(first, max(first, end))),)

    def make(self, whole: Sequence[Block], parts: Sequence[Block], rows: Rows) -> Made:
        del whole
        block = parts[0]
        if self._unit == 1:
            order = interleaved_rows(block.values.shape[1], self._head_rows)
            return _rearranged(block, lambda values: values[:, order], whole_rows=False)
        order = interleaved_rows(block.values.shape[0], self._head_rows)[rows[0] - block.rows[0] :]
        order = order[: rows[1] - rows[0]]
        return _rearranged(block, lambda values: values[order], whole_rows=True)


def interleaved_rows(count: int, head_rows: int) -> npt.NDArray[np.int64]:
    """Where each of ``count`` rows of whole heads is stored: row (head, half, i) at (head, i, half)."""
    rows = np.arange(count).reshape(-1, head_rows // 2, 2).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1), dtype=np.int64)


def _rearranged(block: Block, take: Undo, *, whole_rows: bool) -> Made:
    """Rearrange values and their reach alike.

    Quantisers work within rows: where whole rows are rearranged, other weights can be quantised again in any order.
    """
    values = np.ascontiguousarray(take(block.values))
    if block.coding is None:
        return values, None
    reach = block.coding.reach
    return values, replace(block.coding, reach=lambda: take(reach()), again=block.coding.again if whole_rows else None)


def _has_one_added(found: Mapping[str, _At], architecture: str, source: WeightSource, other: WeightSource) -> bool:
    """Whether the gains of norms are larger by 1 than the other checkpoint's; some architectures do it, some versions.

    Training moves gains by far less than the half that decides.
    """
    shifts = []
    for name, at in found.items():
        here, there = source.table[at.name], other.table.get(name)
        if there is None or not name.endswith("norm.weight") or here.shape != there.shape or here.dtype != "F32":
            continue
        one, two = _read(source, at.name, (0, 1)), _read(other, name, (0, 1))
        if one is not None and two is not None:
            with np.errstate(all="ignore"):
                shifts.append(float(np.nan_to_num(np.median(one - two))))
        if len(shifts) == _NORMS_LOOKED_AT:
            break
    return bool(np.median(shifts) > _HALF) if shifts else architecture in _ONE_ADDED


def _is_interleaved(found: Mapping[str, _At], heads: _Heads, source: WeightSource, other: WeightSource) -> bool:
    """Whether a few rows of queries and keys are nearer to the other checkpoint's once they are put back."""
    as_stored: list[F64] = []
    put_back: list[F64] = []
    for part in (_QUERY, _KEY):
        for name, at in found.items():
            if part not in at.name or not at.name.endswith(".weight"):
                continue
            stored, meta = source.table[at.name], other.table.get(name)
            if meta is None:
                continue
            count = heads.count_for(at.name)
            if stored.shape != meta.shape or len(meta.shape) != 2 or meta.shape[0] % (2 * count):
                continue
            head_rows = meta.shape[0] // count
            rows = 0, head_rows * min(count, _HEADS_LOOKED_AT)
            here, there = _read(source, at.name, rows), _read(other, name, rows)
            if here is None or there is None:
                continue
            as_stored.append(_cosines(here, there))
            put_back.append(_cosines(here[interleaved_rows(rows[1], head_rows)], there))
            break
    if not as_stored:
        return False
    return bool(np.median(np.concatenate(put_back)) > np.median(np.concatenate(as_stored)))


def _read(source: WeightSource, name: str, rows: Rows) -> F64 | None:
    meta = source.table[name]
    size = (rows[1] - rows[0]) * meta.rows_cols[1] * storage_dtype(meta.dtype).itemsize
    if not is_float(meta.dtype) or size > MAX_WHOLE_BYTES:
        return None
    try:
        (block,) = source.stream([BlockRequest(name=name, rows=rows)])
    except CouldNotConclude:
        return None
    return decode(block.values, block.dtype).astype(np.float64)


def _cosines(one: F64, two: F64) -> F64:
    with np.errstate(all="ignore"):
        cosines: F64 = np.nan_to_num((one * two).sum(1) / np.sqrt((one**2).sum(1) * (two**2).sum(1)))
    return cosines
