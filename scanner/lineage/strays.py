"""Finds, after the comparison, layers whose units or heads only stand elsewhere, and puts the base in their order.

The check of descent samples a dozen tensors, so that a few layers in another order pass it unseen, and every row of
them looks exchanged. The comparison has measured each row, for nothing more: rows that resemble their own row of the
base no more than strangers do are *strays*. Only layers with strays are read again.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.lineage.descent import UNRELATED_COSINE
from scanner.lineage.heads import ATTENTION_ROLES, heads_of, order_heads
from scanner.lineage.straightened import Recipes, module_of, order_units, reordered
from scanner.lineage.trace import STRAIGHTENED
from scanner.records import Alignment, Check, DriftFacts, Measured, PairSpec, Role, Skip, TensorDrift
from scanner.weights.source import WeightSource

LEAST_STRAYS = 2
"""Rows that must be strays: one row alone cannot have traded places."""
UNSETTLED = (
    "rows resemble none at their places in the base; whether they only stand in another order is not looked into "
    "within a budget"
)
_UNIT_ROLES: tuple[Role, ...] = ("mlp_in", "mlp_gate")
_BLOCK_ROLES: frozenset[Role] = frozenset({*_UNIT_ROLES, "mlp_out", "bias"})
_ATTENTION: frozenset[Role] = frozenset({*ATTENTION_ROLES, "bias"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The base in the candidate's order, and the alignment of the tensors that must be measured anew."""

    base: WeightSource
    again: Alignment
    check: Check


def follow_strays(
    drift: DriftFacts,
    alignment: Alignment,
    base: WeightSource,
    candidate: WeightSource,
    *,
    config: Mapping[str, Any] | None,
    seed: int,
) -> Followed | None:
    """Look for an order of units or heads in every layer with strays; None when there is none to follow.

    Args:
        drift: of all pairs, none of them sampled.
        alignment: the pairs.
        base: the base's weights, as they were compared.
        candidate: the candidate's.
        config: the candidate's configuration, for the number of heads.
        seed: of the projection behind the comparison of rows.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    strays = stray_tensors(drift)
    blocks = _grouped(alignment, strays, _UNIT_ROLES, _BLOCK_ROLES)
    attentions = _grouped(alignment, strays, ATTENTION_ROLES[:3], _ATTENTION)
    heads = heads_of(config)
    units = [made for pairs in blocks if (made := order_units(pairs, base, candidate, seed))]
    layers = [made for pairs in attentions if heads and (made := order_heads(pairs, base, candidate, heads, seed=seed))]
    recipes: Recipes = [recipe for made in (*units, *layers) for recipe in made]
    if not recipes:
        return None
    moved = {recipe.pair.name for recipe in recipes}
    parts = (("feed-forward units", len(units)), ("attention heads", len(layers)))
    notes = (Skip(what=f"{what} of {count} blocks", why=STRAIGHTENED) for what, count in parts if count)
    check = Check(
        name="moved_units",
        outcome="passed",
        measurements=(
            Measured(name="feed_forward_blocks", value=float(len(units)), unit="blocks"),
            Measured(name="attention_blocks", value=float(len(layers)), unit="blocks"),
        ),
        note="Whole units or heads of some layers stand elsewhere in the base; they are compared where they stand.",
    )
    again = Alignment(
        pairs=tuple(pair for pair in alignment.pairs if pair.name in moved),
        skips=tuple(notes),
        parameters_total=alignment.parameters_total,
    )
    return Followed(base=reordered(base, recipes), again=again, check=check)


def stray_tensors(drift: DriftFacts) -> frozenset[str]:
    """Names of the matrices of layers in which at least ``LEAST_STRAYS`` compared rows are strays."""
    return frozenset(tensor.spec.name for tensor in drift.tensors if _has_strays(tensor))


def _has_strays(tensor: TensorDrift) -> bool:
    spec = tensor.spec
    if spec.role not in {*_UNIT_ROLES, *ATTENTION_ROLES[:3]} or spec.layer is None or len(spec.shape) != 2:
        return False
    base_sq, along = tensor.row_base_sq, tensor.row_base_sq + tensor.row_dot  # Σ b², Σ b·c
    own_sq = base_sq + 2 * tensor.row_dot + tensor.row_delta_sq
    alive = (base_sq > 0) & (own_sq > 0)
    strays = along[alive] <= UNRELATED_COSINE * np.sqrt(base_sq[alive]) * np.sqrt(own_sq[alive])
    return int(np.sum(strays)) >= LEAST_STRAYS


def _grouped(
    alignment: Alignment, strays: frozenset[str], telling: Sequence[Role], roles: frozenset[Role]
) -> Iterator[list[PairSpec]]:
    """The pairs of every block in which a tensor of a telling role has strays."""
    blocks: dict[str, list[PairSpec]] = defaultdict(list)
    for pair in alignment.pairs:
        if pair.layer is not None and pair.role in roles and pair.shape == pair.base.shape:
            blocks[module_of(pair)].append(pair)
    for pairs in blocks.values():
        if any(pair.name in strays and pair.role in telling for pair in pairs):
            yield pairs
