"""Tests from the weights whether the candidate descends from the base: sampled rows, and checks beside them.

The null of every check is *independent training with the same architecture*: equal configurations, tensor tables,
norms or biases alone never count as evidence. Rows of a descendant keep their place and direction; rows of an
independent model are orthogonal to the base's. Between the boundaries lies a range in which the answer is
*unverified*. What is measured how often on pairs of known descent stands in docs/benchmarks.md.

*Verified* means: not independent. Siblings, and models trained from the same random start, are not independent
either; who is nearest is asked in ``scanner.lineage.candidates``. Permuted units and misplaced tensors are the
business of ``scanner.lineage.trace``.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from scanner.errors import CouldNotConclude
from scanner.lineage.chance import centred_correlation, correlation_log10_p, fisher_log10_p
from scanner.lineage.rows import RowAgreement, compare_rows
from scanner.lineage.sampling import MAX_SAMPLE_BYTES, plan_samples, read_samples, read_values
from scanner.records import Alignment, Check, LineageStatus, Measured, PairSpec, Relation
from scanner.weights.source import BlockRequest, WeightSource

Agreements = Sequence[tuple[PairSpec, RowAgreement]]

KEPT_COSINE = 0.5**0.5
"""Median row cosine from which a tensor counts as kept: half of a row's energy (cos²) is the base's. Over 240 clean
fine-tunes of a small GPT the median of a model never fell below 0.962 (design measurements, gate G1); the margin is
for training that goes much further."""
UNRELATED_COSINE = 0.316
"""Median row cosine up to which a tensor counts as unrelated: no single row of 3,456 of independent initialisations
(n = 128 columns) exceeded it (same source), and a median of many rows stays far below."""
KEPT_SHARE = 0.75
"""Share of the sampled tensors that must be kept or traced; the rest may have been made anew."""
KEPT_MATCHED = 0.9
"""Share of rows nearest to their own base row; by chance 1/64. It fails where all rows merely look alike."""
SIGNIFICANT_LOG10_P = -6.0
"""Order statistic of a tensor from which its rows count as *traced*: changed a lot, yet each at its own place."""
TABLE_SHARE = 0.5
"""Share of the candidate's parameters that need a partner for the tables to agree."""
ROTATED_NORM_CORRELATION = 0.9
"""Median correlation of log row norms above which unlike rows may be rotated or permuted copies."""
MAX_NULL_ERROR = UNRELATED_COSINE / 3
"""Standard error of a tensor's median cosine under independence above which nothing is called unrelated."""
MIN_TENSORS = 3
MAX_NORM_VECTORS = 6
MIN_NORM_PLACES = 32
_MEDIAN_EFFICIENCY = 1.2533
"""√(π/2): the standard error of a median over that of a mean, for normal values."""
_UNIT_ROLES = ("mlp_in", "mlp_gate", "mlp_out")


def check_descent(
    alignment: Alignment,
    base: WeightSource,
    candidate: WeightSource,
    *,
    rows_per_tensor: int = 64,
    seed: int = 0,
    declared: Relation | None = None,
    most_bytes: int = MAX_SAMPLE_BYTES,
) -> tuple[LineageStatus, Relation, tuple[Check, ...]]:
    """Sample rows of matrices that pair and say whether the candidate keeps the base's.

    ``verified``: at least ``KEPT_SHARE`` of the sampled tensors have rows that are nearest to their own, and a median
    row cosine of at least ``KEPT_COSINE``, or above ``UNRELATED_COSINE`` with an order that chance does not give.
    ``contradicted``: every sampled tensor stays at or below ``UNRELATED_COSINE``, and row norms do not hint at a
    rotation. Everything else, too little to sample and reads that fail included, is ``unverified``.

    Args:
        alignment: pairs of the two tables.
        base: the declared parent's weights.
        candidate: the weights in question.
        rows_per_tensor: rows sampled from each of at most 12 tensors.
        seed: of the choice of tensors and rows.
        declared: relation that is declared; it is returned once the weights are verified.
        most_bytes: of both sides together that the sample may take.

    Returns:
        Status, relation (``unknown`` unless verified; a sample can never show that nothing changed, so ``identical``
        is left to ``scanner.lineage.relation``), and the checks with their measurements: ``tensor_table``,
        ``sampled_rows``, and beside them ``unit_order``, ``norm_vectors`` and ``bit_identity``, which support the
        answer and never change it.
    """
    table_check = _check_table(alignment)
    planned = plan_samples(alignment.pairs, rows_per_tensor=rows_per_tensor, seed=seed, most_bytes=most_bytes)
    try:
        found = [(sample.spec, compare_rows(sample)) for sample in read_samples(planned, base, candidate)]
        norms = _check_norms(alignment, base, candidate)
    except CouldNotConclude as error:
        return "unverified", "unknown", (table_check, Check(name="sampled_rows", outcome="not_run", note=str(error)))
    agreements = [(spec, agreement) for spec, agreement in found if agreement is not None]
    if len(agreements) < MIN_TENSORS:
        note = f"Only {len(agreements)} matrices could be sampled on both sides; {MIN_TENSORS} are needed."
        return "unverified", "unknown", (table_check, Check(name="sampled_rows", outcome="not_run", note=note))
    status, note = _status(agreements)
    rows_check = Check(
        name="sampled_rows",
        outcome="passed" if status == "verified" else "failed",
        measurements=(*_measurements([agreement for _, agreement in agreements]), seeded(seed)),
        note=note,
    )
    relation: Relation = (declared or "finetune") if status == "verified" else "unknown"
    return status, relation, (table_check, rows_check, _check_units(agreements), norms, _check_bits(agreements))


def seeded(seed: int) -> Measured:
    """The seed as a number of the report, so that a repetition draws the same rows."""
    return Measured(name="sampling_seed", value=float(seed))


def _check_table(alignment: Alignment) -> Check:
    """How much of the candidate has a partner of the same shape; necessary for descent, never sufficient."""
    total, compared = alignment.parameters_total, alignment.parameters_compared
    share = compared / total if total else 0.0
    return Check(
        name="tensor_table",
        outcome="passed" if share >= TABLE_SHARE else "failed",
        measurements=(
            Measured(name="parameters_with_partner", value=share, unit="share"),
            Measured(name="tensors_with_partner", value=float(len(alignment.pairs)), unit="tensors"),
        ),
        note="" if share >= TABLE_SHARE else "Most of the candidate corresponds to nothing in the base.",
    )


def is_kept(agreement: RowAgreement) -> bool:
    """Whether the rows of a tensor are still the base's: half of their energy, each nearest to its own."""
    return agreement.cosine >= KEPT_COSINE and agreement.matched >= KEPT_MATCHED


def _is_traced(agreement: RowAgreement) -> bool:
    """Whether the rows have moved far, yet stand at their own places in a way that chance does not give."""
    return (
        agreement.cosine > UNRELATED_COSINE
        and agreement.matched >= KEPT_MATCHED
        and agreement.order_log10_p <= SIGNIFICANT_LOG10_P
    )


def _status(agreements: Agreements) -> tuple[LineageStatus, str]:
    """Apply the boundaries; the note is one sentence for people."""
    count = len(agreements)
    kept = sum(is_kept(a) for _, a in agreements)
    traced = sum(_is_traced(a) and not is_kept(a) for _, a in agreements)
    strangers = [spec for spec, a in agreements if a.cosine <= UNRELATED_COSINE and _null_error(a) <= MAX_NULL_ERROR]
    if kept + traced >= KEPT_SHARE * count:
        anew = f"; unlike it: {', '.join(spec.name for spec in strangers)}" if strangers else ""
        far = f", and those of {traced} more keep their places but turned far" if traced else ""
        return "verified", f"Rows of {kept} of {count} sampled matrices point where the base's do{far}{anew}."
    if len(strangers) < count:
        rest = f"kept in {kept}, unrelated in {len(strangers)}"
        return "unverified", f"Rows of {count} sampled matrices are {rest}, which is too mixed to tell descent."
    if _norms_agree(agreements):
        return "unverified", "Rows keep the base's norms but not its directions, as after a rotation or permutation."
    return "contradicted", f"Rows of all {count} sampled matrices are unrelated to the base's."


def _norms_agree(agreements: Agreements) -> bool:
    """Whether row norms agree inside of blocks; token rows are left out, whose norms follow frequency in any model."""
    inside = [a.norm_correlation for spec, a in agreements if spec.layer is not None]
    return bool(inside) and float(np.median(inside)) >= ROTATED_NORM_CORRELATION


def _null_error(agreement: RowAgreement) -> float:
    """Standard error of the median cosine if the rows were independent of the base's."""
    return _MEDIAN_EFFICIENCY * agreement.null_sd / float(np.sqrt(agreement.rows))


def _measurements(agreements: Sequence[RowAgreement]) -> tuple[Measured, ...]:
    """What the rule looked at, over the sampled tensors."""
    cosines = [a.cosine for a in agreements]
    null_sd = float(np.median([a.null_sd for a in agreements]))
    middle = float(np.median(cosines))
    return (
        Measured(name="row_cosine_median", value=middle),
        Measured(name="row_cosine_lowest_tensor", value=min(cosines)),
        Measured(name="row_cosine_null_sd", value=null_sd),
        Measured(
            name="rows_nearest_to_their_own", value=float(np.median([a.matched for a in agreements])), unit="share"
        ),
        Measured(name="row_norm_correlation", value=float(np.median([a.norm_correlation for a in agreements]))),
        Measured(name="relative_drift_median", value=float(np.median([a.relative_drift for a in agreements]))),
        Measured(name="zeroed_share_median", value=float(np.median([a.zeroed for a in agreements])), unit="share"),
        Measured(name="levels_ratio_median", value=float(np.median([a.levels for a in agreements]))),
        *_ranks(agreements),
        Measured(name="tensors_bit_identical", value=float(sum(a.identical for a in agreements)), unit="tensors"),
        Measured(name="tensors_sampled", value=float(len(agreements)), unit="tensors"),
        Measured(name="rows_sampled", value=float(sum(a.rows for a in agreements)), unit="rows"),
    )


def _ranks(agreements: Sequence[RowAgreement]) -> Iterator[Measured]:
    """Rank of the sampled deltas, over tensors that changed; nothing when none did, or rounding hides it."""
    changed = [a for a in agreements if a.delta_rank != 0]
    known = [a.delta_rank / a.rows for a in changed if a.delta_rank is not None]
    if known and len(known) == len(changed):
        yield Measured(name="delta_rank_highest", value=float(max(a.delta_rank or 0 for a in changed)))
        yield Measured(name="delta_rank_over_rows", value=max(known), unit="share")
        yield Measured(name="tensors_changed", value=float(len(changed)), unit="tensors")


def _check_units(agreements: Agreements) -> Check:
    """The order of matched hidden units, whose null is exact; one tensor a layer, since a layer's share one order.

    Only matrices with hidden units of a feed-forward block as rows take part (wider than the model, rows > columns).
    """
    by_layer: dict[int, RowAgreement] = {}
    for spec, agreement in sorted(agreements, key=lambda pair: str(pair[0].role)):
        rows, columns = spec.candidate.rows_cols
        if spec.role in _UNIT_ROLES and rows > columns and spec.layer is not None:
            by_layer.setdefault(spec.layer, agreement)
    if not by_layer:
        return Check(name="unit_order", outcome="not_run", note="No sampled matrix has hidden units as its rows.")
    log10_p = fisher_log10_p([agreement.order_log10_p for agreement in by_layer.values()])
    return Check(
        name="unit_order",
        outcome="passed" if log10_p <= SIGNIFICANT_LOG10_P else "failed",
        measurements=(
            Measured(name="log10_p", value=log10_p),
            Measured(name="layers", value=float(len(by_layer)), unit="layers"),
        ),
        note="Chance of such an order of the matched hidden units if the two models were independent.",
    )


def _check_norms(alignment: Alignment, base: WeightSource, candidate: WeightSource) -> Check:
    """Centred correlation of the gains of norms over the dimensions of the model.

    Their order is exchangeable under independence, but one for all layers, so the p-value is that of the *mean*
    correlation held against the null of a single vector.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    vectors = [
        p for p in alignment.pairs if p.role == "norm" and p.candidate.shape == p.base.shape and len(p.shape) == 1
    ]
    places = max((p.candidate.count for p in vectors), default=0)
    vectors = [p for p in vectors if p.candidate.count == places and p.name.endswith(("weight", "gamma", "scale"))]
    if places < MIN_NORM_PLACES or not vectors:
        return Check(name="norm_vectors", outcome="not_run", note="There are no norms of the model's width to compare.")
    chosen = [vectors[i] for i in sorted({round(x) for x in np.linspace(0, len(vectors) - 1, MAX_NORM_VECTORS)})]
    theirs = read_values(base, [BlockRequest(name=p.base.name, rows=(0, 1)) for p in chosen])
    ours = read_values(candidate, [BlockRequest(name=p.candidate.name, rows=(0, 1)) for p in chosen])
    pairs = [(b[0], c[0]) for b, c in zip(theirs, ours, strict=True) if np.isfinite(b).all() and np.isfinite(c).all()]
    pairs = [(b, c) for b, c in pairs if np.ptp(b) > 0 and np.ptp(c) > 0]
    if not pairs:
        return Check(name="norm_vectors", outcome="not_run", note="The gains of the norms are constant.")
    correlation = float(np.mean([centred_correlation(b, c) for b, c in pairs]))
    log10_p = correlation_log10_p(correlation, places)
    return Check(
        name="norm_vectors",
        outcome="passed" if log10_p <= SIGNIFICANT_LOG10_P else "failed",
        measurements=(
            Measured(name="centred_correlation", value=correlation),
            Measured(name="log10_p", value=log10_p),
            Measured(name="vectors", value=float(len(pairs)), unit="vectors"),
        ),
        note="Supports the answer only: gains move little, or much, in honest training.",
    )


def _check_bits(agreements: Agreements) -> Check:
    """Rows whose every bit is the base's; independent training gives none."""
    rows = sum(a.rows for _, a in agreements)
    same = sum(min(a.identical_rows, a.rows) for _, a in agreements)
    columns = min(spec.candidate.rows_cols[1] for spec, _ in agreements)
    measurements = [Measured(name="rows_bit_identical", value=same / rows, unit="share")]
    if same:
        # Each entry takes at least two values about equally often, so it agrees by chance half of the time at most.
        measurements.append(Measured(name="log10_p", value=max(-300.0, -columns * float(np.log10(2.0)))))
    return Check(
        name="bit_identity",
        outcome="passed" if same else "not_run",
        measurements=tuple(measurements),
        note="" if same else "No sampled row is bit-identical, as after training of all weights; this says nothing.",
    )
