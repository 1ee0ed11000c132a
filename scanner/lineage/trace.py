"""The whole question of descent for one pair: names, then content, then moved layers, then permuted units."""

from dataclasses import dataclass, replace

from scanner.errors import CouldNotConclude
from scanner.lineage.by_content import content_skip, follow_layers, pair_by_content
from scanner.lineage.descent import check_descent
from scanner.lineage.permuted import check_permutation
from scanner.lineage.straightened import straighten
from scanner.records import Alignment, Check, LineageStatus, Measured, Relation, Skip
from scanner.weights.source import WeightSource

PERMUTED = "the hidden units stand in another order than the base's, so the values are not compared"
STRAIGHTENED = "the candidate has them in another order than the base; they are compared in the candidate's"
MAX_LEFT = 20
"""Tensors of blocks without an order that are named one by one."""
IN_PLACE_SHARE = 0.5
"""Share of units at their own places from which the layer counts as not permuted."""
_PARTLY = "The hidden units are found in the base, but an order of them does not explain what differs."
_PERMUTED_ROLES = frozenset({"mlp_in", "mlp_gate", "mlp_out", "bias"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What the weights say, and the alignment to compare them by.

    ``base`` takes the place of the base's source where the order of its hidden units had to be followed.
    """

    status: LineageStatus
    relation: Relation
    checks: tuple[Check, ...]
    alignment: Alignment
    base: WeightSource | None = None


def trace(
    alignment: Alignment,
    base: WeightSource,
    candidate: WeightSource,
    *,
    seed: int,
    declared: Relation | None = None,
    most_bytes: int | None = None,
) -> Traced:
    """Say whether the candidate descends from the base, and pair what only its content shows to correspond.

    Each further step reads more and runs only while the ones before leave descent open: a base is contradicted only
    after no moved layer and no order of hidden units explains the difference.

    Args:
        alignment: pairs by name.
        base: the declared parent's weights.
        candidate: the weights in question.
        seed: of the rows that are looked at (``sampling.sampling_seed``); it is recorded with the checks.
        declared: the declared relation.
        most_bytes: of both sides together; within such a bound the rows are sampled by name, and nothing further is
            tried. No bound but those of the steps when None.
    """
    if most_bytes is not None:
        found = check_descent(alignment, base, candidate, seed=seed, declared=declared, most_bytes=most_bytes)
        return Traced(status=found[0], relation=found[1], checks=found[2], alignment=alignment)
    notes: tuple[Skip, ...] = ()
    try:
        wider = pair_by_content(alignment, base, candidate)
        note = content_skip(wider, alignment)
        notes, alignment = ((note,) if note else ()), wider
    except CouldNotConclude as error:
        notes = (Skip(what="tensors without a partner", why=f"not compared by content: {error}"),)
    alignment = replace(alignment, skips=(*alignment.skips, *notes))
    status, relation, checks = check_descent(alignment, base, candidate, seed=seed, declared=declared)
    traced = Traced(status=status, relation=relation, checks=checks, alignment=alignment)
    if status == "verified" or _too_little(checks):
        return traced
    return _by_moved_layers(traced, base, candidate, seed, declared) or _by_permutation(
        traced, base, candidate, seed, declared
    )


def _too_little(checks: tuple[Check, ...]) -> bool:
    """Whether the tables disagree, or nothing could be sampled: then nothing further is worth reading."""
    by_name = {check.name: check for check in checks}
    return by_name["tensor_table"].outcome == "failed" or by_name["sampled_rows"].outcome == "not_run"


def _by_moved_layers(
    traced: Traced, base: WeightSource, candidate: WeightSource, seed: int, declared: Relation | None
) -> Traced | None:
    """Try again with every layer at the place where its content stands in the base."""
    try:
        moved = follow_layers(traced.alignment, base, candidate)
    except CouldNotConclude:
        return None
    if moved is None:
        return None
    status, relation, checks = check_descent(moved.alignment, base, candidate, seed=seed, declared=declared)
    if status != "verified":
        return None
    away = sum(here != there for here, there in moved.layers.items())
    check = Check(
        name="moved_layers",
        outcome="passed",
        measurements=(
            Measured(name="layers_moved", value=float(away), unit="layers"),
            Measured(name="layers_found", value=float(len(moved.layers)), unit="layers"),
        ),
        note="Layers of the candidate stand elsewhere in the base; they are compared where their content stands.",
    )
    return Traced(status=status, relation=relation, checks=(*checks, check), alignment=moved.alignment)


def _by_permutation(
    traced: Traced, base: WeightSource, candidate: WeightSource, seed: int, declared: Relation | None
) -> Traced:
    """Try any order of the hidden units and of the dimensions; compare then only what keeps its order.

    Units that are found at their own places are no permutation. Where the dimensions stay, everything but the
    feed-forward blocks must verify as it stands.
    """
    check = check_permutation(traced.alignment, base, candidate)
    checks = (*traced.checks, check)
    numbers = {item.name: item.value for item in check.measurements}
    if check.outcome != "passed":
        return replace(traced, checks=checks)
    moved = bool(numbers["dimensions_moved"])
    kept = tuple(p for p in traced.alignment.pairs if p.role not in _PERMUTED_ROLES)
    rest = replace(traced.alignment, pairs=kept)
    stays = not moved and check_descent(rest, base, candidate, seed=seed)[0] == "verified"
    partly = numbers["units_in_place"] > IN_PLACE_SHARE
    if stays and (straight := _straightened(traced, check, base, candidate, seed, declared, partly=partly)):
        return straight
    if not moved and (partly or not stays):
        return replace(traced, checks=(*traced.checks, replace(check, outcome="failed", note=_PARTLY)))
    skip = Skip(what="all tensors" if moved else "feed-forward tensors and biases", why=PERMUTED)
    return Traced(
        status="verified",
        relation=declared or "finetune",
        checks=checks,
        alignment=replace(rest, pairs=() if moved else kept, skips=(*rest.skips, skip)),
    )


def _straightened(
    traced: Traced,
    check: Check,
    base: WeightSource,
    candidate: WeightSource,
    seed: int,
    declared: Relation | None,
    *,
    partly: bool,
) -> Traced | None:
    """Compare the feed-forward blocks in the candidate's order of units; None when no block's order is found.

    Blocks without an order are left out, but ``partly``, where some blocks are known to stand in place: then they were
    changed, not moved, and are compared where they stand.
    """
    try:
        found = straighten(traced.alignment, base, candidate, seed=seed)
    except CouldNotConclude:
        return None
    if not found.layers:
        return None
    left = set() if partly else {pair.name for pair in found.left}
    skips = tuple(Skip(what=name, why=PERMUTED) for name in sorted(left)[:MAX_LEFT])
    if len(left) > MAX_LEFT:
        skips = (*skips, Skip(what=f"and {len(left) - MAX_LEFT:,} more", why=PERMUTED))
    note = Skip(what=f"feed-forward units of {found.layers} blocks", why=STRAIGHTENED)
    alignment = replace(
        traced.alignment,
        pairs=tuple(pair for pair in traced.alignment.pairs if pair.name not in left),
        skips=(*traced.alignment.skips, note, *skips),
    )
    status, relation, checks = check_descent(alignment, found.base, candidate, seed=seed, declared=declared)
    if status != "verified":
        return None
    return Traced(status=status, relation=relation, checks=(*checks, check), alignment=alignment, base=found.base)
