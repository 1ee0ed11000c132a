"""Recognise quantised layers by the tensors that stand side by side, and decode them.

What a layer is follows from names and shapes, as in the file, and not from the configuration, which only settles what
they leave open. A layer whose tensors contradict one another, or whose form is not known, becomes a skip.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scanner.paths import shown
from scanner.records import Skip, TensorMeta
from scanner.weights.bnb import BOOK_TOLERANCE, CODE_BOOKS, FourBit, State
from scanner.weights.derived import MAX_ROW_ELEMENTS, MAX_WHOLE_BYTES, DerivedSource, Recipe
from scanner.weights.dtypes import decode
from scanner.weights.gptq import GPTQ_BITS, WORD_BITS, Awq, Gptq
from scanner.weights.packed import FourBitFloat, Packed
from scanner.weights.scaled import INT8_DIVISOR, Scaled, grid_of
from scanner.weights.source import BlockRequest, WeightSource
from scanner.weights.strict_json import JsonError, JsonLimits, load_object, name_some

MAX_SMALL_BYTES: Final = 4096
"""Largest tensor that is read while the table is made (code books, shapes, states)."""
_STATE_LIMITS: Final = JsonLimits(objects=4, lists=4, commas=64)
_PACKED_BITS: Final = frozenset({2, 4, 8})
_ACTIVATIONS: Final = (".input_scale", ".output_scale", ".input_global_scale", ".weight_format", ".k_scale", ".v_scale")
"""Leaves beside a quantised layer that say nothing of its weights."""
_STATE: Final = ".quant_state.bitsandbytes__"


class _Unfit(Exception):  # noqa: N818
    """The tensors of a layer do not fit together; the message says why."""


@dataclass(slots=True, kw_only=True)
class _Plan:
    """What is made of a table: recipes, tensors used up by them, and what could not be."""

    recipes: list[Recipe] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    failed: dict[str, list[str]] = field(default_factory=dict)


Small = Mapping[str, npt.NDArray[Any]]


def dequantised(source: WeightSource, config: Mapping[str, Any] | None) -> WeightSource:
    """Return the source with its quantised layers decoded, or the source itself when it has none.

    Args:
        source: the open checkpoint.
        config: parsed config.json; ``quantization_config`` settles the version of GPTQ's zero points and the blocks
            of scales.

    Raises:
        CouldNotConclude: the small tensors that describe the layers cannot be read.
    """
    table = source.table
    layers = [
        (name, reader)
        for name in table
        for ending, reader in _READERS
        if name.endswith(ending)
        and not (ending == ".weight_scale" and f"{name.rpartition('.')[0]}.weight_packed" in table)
    ]
    if not layers:
        return source
    settings = (config or {}).get("quantization_config")
    small = _read_small(source)
    plan = _Plan()
    for name, reader in layers:
        try:
            recipe, used = reader(name, table, small, settings if isinstance(settings, Mapping) else {})
            _check_size(recipe, table)
        except _Unfit as unfit:
            plan.failed.setdefault(str(unfit), []).append(name)
            plan.used.update(_beside(name, table))
            continue
        plan.recipes.append(recipe)
        plan.used.update(used)
    plan.used.update(name for name in table if name.endswith(_ACTIVATIONS))
    skips = tuple(Skip(what=name_some(names), why=why) for why, names in plan.failed.items())
    kept = [name for name in table if name not in plan.used]
    return DerivedSource(source, recipes=plan.recipes, kept=kept, skips=skips)


def _read_small(source: WeightSource) -> dict[str, npt.NDArray[Any]]:
    """The values of all small tensors that describe layers, read in one go."""
    wanted = [
        name
        for name, meta in source.table.items()
        if meta.end - meta.start <= MAX_SMALL_BYTES
        and (name.endswith((".quant_map", ".weight_shape")) or _STATE in name)
    ]
    requests = [BlockRequest(name=name, rows=(0, source.table[name].rows_cols[0])) for name in wanted]
    return {block.name: block.values.reshape(-1).copy() for block in source.stream(requests)}


def _beside(name: str, table: Mapping[str, TensorMeta]) -> Iterator[str]:
    """The parts of the layer that this tensor gives away; its bias and what lies in modules below it are its own."""
    stem = name.partition(_STATE)[0].rpartition(".")[0]
    for other in table:
        rest = other.removeprefix(stem + ".")
        if rest not in (other, "bias") and ("." not in rest or rest.startswith("weight.")):
            yield other


def _check_size(recipe: Recipe, table: Mapping[str, TensorMeta]) -> None:
    if recipe.meta.count and recipe.meta.rows_cols[1] > MAX_ROW_ELEMENTS:
        raise _Unfit(f"a row of more than {MAX_ROW_ELEMENTS:,} elements is not decoded")
    if sum(table[request.name].end - table[request.name].start for request in recipe.whole) > MAX_WHOLE_BYTES:
        raise _Unfit(f"needs more than {MAX_WHOLE_BYTES:,} bytes of packed values at once, which is not read")


def _fit(fits: bool, why: str) -> None:
    if not fits:
        raise _Unfit(why)


_MAX_AXIS: Final = 1 << 40
_MAX_BLOCK: Final = 1 << 20
_STATELESS: Final = "quantised, but its quant_state cannot be read"
_SHAPES: Final = "quantised, but the shapes of its parts do not fit together"
_Read = tuple[Recipe, tuple[str, ...]]


def _part(table: Mapping[str, TensorMeta], name: str, kinds: tuple[str, ...], axes: int | None = None) -> TensorMeta:
    """A part that has to be there, of one of these dtypes.

    Raises:
        _Unfit: it is not.
    """
    meta = table.get(name)
    if meta is None or meta.dtype not in kinds or (axes is not None and len(meta.shape) != axes) or not meta.count:
        raise _Unfit(f"quantised, but without a usable {shown(name.rpartition('.')[2])} beside it")
    return meta


_FLOATS: Final = ("F16", "BF16", "F32")
_INTS: Final = ("I32", "U32")


def _read_words(name: str, table: Mapping[str, TensorMeta], small: Small, settings: Mapping[str, Any]) -> _Read:
    """GPTQ or AWQ, whichever the shapes say."""
    del small
    stem = name.rpartition(".")[0]
    qweight = _part(table, name, _INTS, 2)
    qzeros = _part(table, f"{stem}.qzeros", _INTS, 2)
    scales = _part(table, f"{stem}.scales", _FLOATS, 2)
    g_idx = table.get(f"{stem}.g_idx")
    weight = f"{stem}.weight"
    groups, outputs = scales.shape
    used = tuple(meta.name for meta in (qweight, qzeros, scales, g_idx) if meta is not None)
    _fit(weight not in table and qzeros.shape[0] == groups, _SHAPES)
    if qweight.shape[1] == outputs:
        bits, rest = divmod(qzeros.shape[1] * WORD_BITS, outputs)
        _fit(rest == 0 and bits in GPTQ_BITS, _SHAPES)
        inputs, rest = divmod(qweight.shape[0] * WORD_BITS, bits)
        _fit(rest == 0 and groups <= inputs, _SHAPES)
        if g_idx is not None:
            _fit(g_idx.dtype in ("I32", "I64") and g_idx.shape == (inputs,), _SHAPES)
        old = settings.get("checkpoint_format") != "gptq_v2"
        recipe = Gptq(weight, qweight, qzeros, scales, g_idx, bits=bits, inputs=inputs, zero_offset=int(old))
        return recipe, used
    inputs = qweight.shape[0]
    _fit(qweight.shape[1] * 8 == outputs == qzeros.shape[1] * 8 and inputs % groups == 0, _SHAPES)
    return Awq(weight, qweight, qzeros, scales), used


def _read_four_bit(name: str, table: Mapping[str, TensorMeta], small: Small, settings: Mapping[str, Any]) -> _Read:
    """4-bit bitsandbytes; ``name`` is that of the state."""
    del settings
    weight, _, kind = name.partition(_STATE)
    _fit(kind in CODE_BOOKS, f"bitsandbytes kind {shown(kind)} is not read")
    stored = _part(table, weight, ("U8",))
    state = _state(kind, small.get(name))
    count = int(np.prod(state.shape, dtype=object))
    blocks = -(-count // state.block)
    _fit(-(-count // 2) == stored.count and len(state.shape) >= 2, _SHAPES)
    nested: tuple[TensorMeta, ...] = ()
    absmax = _part(table, f"{weight}.absmax", _FLOATS if state.nested_block is None else ("U8",))
    if state.nested_block is not None:
        nested = (
            _part(table, f"{weight}.nested_absmax", _FLOATS),
            _part(table, f"{weight}.nested_quant_map", _FLOATS),
        )
        _fit(nested[1].count == 256 and nested[0].count * state.nested_block >= blocks, _SHAPES)
    _fit(absmax.count == blocks, _SHAPES)
    book = f"{weight}.quant_map"
    values = small.get(book)
    known = values is not None and table[book].dtype in _FLOATS and values.shape == CODE_BOOKS[kind].shape
    if values is None or not known:
        raise _Unfit("quantised, but without a usable quant_map beside it")
    distance = np.abs(decode(values, table[book].dtype).astype(np.float64) - CODE_BOOKS[kind])
    _fit(bool((distance <= BOOK_TOLERANCE).all()), f"its quant_map is not that of {kind}, which the library uses")
    return FourBit(stored, absmax, nested, state), (name, weight, absmax.name, book, *(meta.name for meta in nested))


def _state(kind: str, raw: npt.NDArray[Any] | None) -> State:
    """Read the JSON of a state.

    Raises:
        _Unfit: there is none, or it is not one.
    """
    try:
        found = load_object(b"" if raw is None else raw.tobytes(), _STATE_LIMITS, sizes_only=False)
    except JsonError as lie:
        raise _Unfit(_STATELESS) from lie
    block, nested = found.get("blocksize"), found.get("nested_blocksize")
    shape, offset = found.get("shape"), found.get("nested_offset", 0.0)
    if not isinstance(block, int) or not isinstance(shape, list) or not isinstance(offset, int | float):
        raise _Unfit(_STATELESS)
    axes = tuple(axis for axis in shape if type(axis) is int and 0 < axis <= _MAX_AXIS)
    _fit(0 < block <= _MAX_BLOCK and len(axes) == len(shape) <= 4 and bool(np.isfinite(offset)), _STATELESS)
    if nested is not None and (not isinstance(nested, int) or not 0 < nested <= _MAX_BLOCK):
        raise _Unfit(_STATELESS)
    return State(kind=kind, block=block, shape=axes, nested_block=nested, offset=float(offset))


def _read_eight_bit(name: str, table: Mapping[str, TensorMeta], small: Small, settings: Mapping[str, Any]) -> _Read:
    """LLM.int8(); ``name`` is that of SCB."""
    del small, settings
    weight = _part(table, name.removesuffix("SCB") + "weight", ("I8",), 2)
    scale = _part(table, name, _FLOATS, 1)
    grid = grid_of(weight, scale)
    if grid is None:
        raise _Unfit(_SHAPES)
    recipe = Scaled(weight, scale, grid, scheme="bitsandbytes 8-bit", divisor=INT8_DIVISOR)
    return recipe, (name, weight.name)


def _read_scaled(name: str, table: Mapping[str, TensorMeta], small: Small, settings: Mapping[str, Any]) -> _Read:
    """8-bit floats and integers with scales; ``name`` is that of the scales."""
    del small
    stem = name.rpartition(".")[0]
    eights = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8")
    weight = _part(table, f"{stem}.weight", eights, 2)
    scale = _part(table, name, (*_FLOATS, "F8_E8M0", "U8"))
    block = settings.get("weight_block_size")
    sizes = tuple(block) if isinstance(block, list) and [type(size) for size in block] == [int, int] else None
    grid = grid_of(weight, scale, (sizes[0], sizes[1]) if sizes else None)
    if grid is None:
        raise _Unfit(_SHAPES)
    zero = table.get(f"{stem}.weight_zero_point")
    if zero is not None:
        _fit(zero.dtype in ("I8", *_FLOATS) and zero.shape == scale.shape, _SHAPES)
    integer = weight.dtype == "I8"
    scheme = "8-bit integers" if integer else f"FP8 {weight.dtype.removeprefix('F8_')}"
    recipe = Scaled(weight, scale, grid, scheme=scheme, zero_point=zero, rescaled=integer)
    return recipe, tuple(meta.name for meta in (weight, scale, zero) if meta is not None)


def _read_packed(name: str, table: Mapping[str, TensorMeta], small: Small, settings: Mapping[str, Any]) -> _Read:
    """compressed-tensors; ``name`` is that of the packed words or bytes."""
    del settings
    stem = name.rpartition(".")[0]
    packed = _part(table, name, ("I32", "U8"), 2)
    weight = f"{stem}.weight"
    _fit(weight not in table, _SHAPES)
    if packed.dtype == "U8":
        divisor = table.get(f"{stem}.weight_global_scale")
        kinds = ("F8_E4M3",) if divisor is not None else ("U8", "F8_E8M0")
        scale = _part(table, f"{stem}.weight_scale", kinds, 2)
        rows, width = packed.shape
        _fit(scale.shape[0] == rows and width * 2 % scale.shape[1] == 0, _SHAPES)
        _fit(divisor is None or (divisor.dtype in _FLOATS and divisor.count >= 1), _SHAPES)
        recipe: Recipe = FourBitFloat(weight, packed, scale, divisor)
        return recipe, tuple(meta.name for meta in (packed, scale, divisor) if meta is not None)
    scale = _part(table, f"{stem}.weight_scale", _FLOATS)
    shape = small.get(f"{stem}.weight_shape")
    if shape is None or shape.shape != (2,) or shape.dtype.kind not in "iu" or int(shape[0]) != packed.shape[0]:
        raise _Unfit("quantised, but without a usable weight_shape beside it")
    rows, cols = int(shape[0]), int(shape[1])
    found = [bits for bits in _PACKED_BITS if cols > 0 and -(-cols * bits // WORD_BITS) == packed.shape[1]]
    _fit(len(found) == 1, "packed with a number of bits that is not read")
    meta = TensorMeta(name=weight, dtype="F32", shape=(rows, cols), file="", start=0, end=0)
    grid = grid_of(meta, scale)
    if grid is None:
        raise _Unfit(_SHAPES)
    g_idx, zero = table.get(f"{stem}.weight_g_idx"), table.get(f"{stem}.weight_zero_point")
    _fit(g_idx is None or (g_idx.dtype in ("I32", "I64") and g_idx.shape == (cols,)), _SHAPES)
    if zero is not None:
        words = -(-rows * found[0] // WORD_BITS)
        _fit(zero.dtype == "I32" and zero.shape == (words, *scale.shape[1:]), _SHAPES)
    recipe = Packed(weight, packed, scale, grid, bits=found[0], shape=(rows, cols), zero_point=zero, g_idx=g_idx)
    used = (packed, scale, zero, g_idx)
    return recipe, (f"{stem}.weight_shape", *(meta.name for meta in used if meta is not None))


_Reader = Callable[[str, Mapping[str, TensorMeta], Small, Mapping[str, Any]], _Read]


_READERS: Final[tuple[tuple[str, _Reader], ...]] = (
    (".qweight", _read_words),
    (_STATE + "nf4", _read_four_bit),
    (_STATE + "fp4", _read_four_bit),
    (".SCB", _read_eight_bit),
    (".weight_scale_inv", _read_scaled),
    (".weight_scale", _read_scaled),
    (".weight_packed", _read_packed),
)
"""The tensor that gives each form away, by the end of its name."""
