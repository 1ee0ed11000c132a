"""Puts the attention heads of a layer of the base into the candidate's order.

Heads that trade places, with their rows of queries, keys and values and their columns of the output, compute what they
computed; so do groups of query heads that trade places with the key head that they share, and query heads within one
group. Other orders of these rows change the function: they are no order of heads and are left for what they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scanner.lineage.straightened import Order, PickedColumns, PickedRows, Recipes, is_in_place, row_order
from scanner.records import PairSpec, Role
from scanner.weights.source import WeightSource

ATTENTION_ROLES: tuple[Role, ...] = ("query", "key", "value", "attention_output")
MAX_HEADS = 1 << 12

Heads = tuple[int, int]
"""Heads of the queries, and those of keys and values."""


def heads_of(config: Mapping[str, Any] | None) -> Heads | None:
    """The numbers of heads that a configuration states; None when it does not, or they make no groups."""
    inner = (config or {}).get("text_config")
    for told in (config or {}, inner if isinstance(inner, Mapping) else {}):
        found = [told.get(key) for key in ("num_attention_heads", "n_head", "num_heads")]
        heads = next((count for count in found if type(count) is int), None)
        shared = told.get("num_key_value_heads", heads)
        if heads is not None and type(shared) is int and 0 < shared <= heads <= MAX_HEADS and heads % shared == 0:
            return heads, shared
    return None


def order_heads(
    pairs: Sequence[PairSpec], base: WeightSource, candidate: WeightSource, heads: Heads, *, seed: int
) -> Recipes | None:
    """How the tensors of one attention are made straight; queries, keys and values are read once from both sides.

    Args:
        pairs: of the attention, its biases included.
        base: the base's weights.
        candidate: the candidate's.
        heads: how many.
        seed: of the projection behind the comparison of rows.

    Returns:
        Recipes of what stands elsewhere, none when everything is in place; None when no order of heads is found.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    sides = [[pair for pair in pairs if pair.role == role and len(pair.shape) == 2] for role in ATTENTION_ROLES]
    if any(len(found) != 1 for found in sides):
        return None
    query, key, value, output = (found[0] for found in sides)
    count, shared = heads
    if query.shape[0] % count or key.shape[0] % shared or value.shape[0] % shared:
        return None
    width = value.shape[0] // shared
    if output.shape[1] != count * width:
        return None
    rows = {pair.name: row_order(pair, base, candidate, seed) for pair in (query, key, value)}
    ours = _heads(rows[query.name], count)
    keys, values = _heads(rows[key.name], shared), _heads(rows[value.name], shared)
    if ours is None or keys is None or values is None or not np.array_equal(keys, values):
        return None
    group = count // shared
    if not np.array_equal(ours // group, keys[np.arange(count) // group]):
        return None
    columns = (ours[:, np.newaxis] * width + np.arange(width)).ravel()
    made: Recipes = [PickedColumns(output, columns)] if not is_in_place(columns) else []
    for pair in (query, key, value):
        order = rows[pair.name]
        if order is None or is_in_place(order):
            continue
        stem = pair.name.removesuffix("weight")
        biases = [p for p in pairs if p.role == "bias" and p.name == f"{stem}bias" and p.shape == (len(order),)]
        made += [PickedRows(pair, order), *(PickedColumns(bias, order) for bias in biases)]
    return made


def _heads(order: Order | None, count: int) -> Order | None:
    """The order of whole heads that an order of rows is; None when it is none, or parts of heads have moved."""
    if order is None:
        return None
    blocks = order.reshape(count, -1)
    width = blocks.shape[1]
    first = blocks[:, 0]
    whole = np.array_equal(blocks, first[:, np.newaxis] + np.arange(width)) and not (first % width).any()
    return first // width if whole else None
