"""Names the relation that the weights show, and holds it against the declared one.

What can be seen: nothing changed (``identical``); stored or rounded to few values (``quantized``); every change of low
rank (an adapter merged in, ``adapter``); everything else is training (``finetune``). Entries set to zero (pruning)
and training that went far are said beside it. Whether several models were merged is measured only against
these models (``scanner.lineage.mixture``), so a declared ``merge`` stands unless the weights plainly say otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scanner.lineage.coded import coded_relation
from scanner.records import Check, DriftFacts, Measured, Relation

LOW_RANK_SHARE = 0.5
"""A sampled delta of R rows has low rank when at most this share of R directions hold it: a full one needs nearly R."""
MIN_LOW_RANK_TENSORS = 3
"""Fewer low-rank changes are an edit, not an adapter."""
PRUNED_SHARE = 0.05
FEW_LEVELS = 0.5
"""Different values per row, relative to the base's rows and the entries left, below which they lie on a grid."""
NARROW_DTYPES = frozenset({"I8", "U8", "I4", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4"})
NARROW_TENSOR_SHARE = 0.5
FAR_DRIFT = 0.4
"""Median ‖candidate − base‖ / ‖base‖ from which training went farther than fine-tuning usually does: reached by 8 of 8
continued pre-trainings, 0 of 40 fine-tunes and instruct models of decoders, 2 of 55 of an encoder (docs/benchmarks.md).
Which token rows moved does not tell them apart: in all of these nearly every row did."""
_FAR = " It went as far as continued pre-training does; the weights do not tell that from long fine-tuning."
_LOW_RANK = "an adapter merged in, or a change cut down to that rank."
"""The two are the same weights; nothing in them tells which it was."""
_FULL_RANK = ", in full rank: trained."
_HIDDEN_RANK = ": trained, or an adapter was merged in, which rounding hides."
COMPATIBLE: Mapping[Relation, frozenset[Relation]] = {
    "finetune": frozenset({"finetune", "adapter", "merge"}),
    "adapter": frozenset({"adapter"}),
    "merge": frozenset({"merge", "finetune", "adapter"}),
    "quantized": frozenset({"quantized"}),
}
"""Declared relation → what the weights may then show. A merged adapter is a way of fine-tuning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The measured relation, ``unknown`` when nothing could be measured, and the check that says on what grounds."""

    relation: Relation
    check: Check


def measure_relation(checks: Sequence[Check], drift: DriftFacts | None) -> Measurement:
    """Return what the weights show of a verified descent.

    Args:
        checks: of the descent; ``sampled_rows`` must have passed.
        drift: the full comparison, None when it was not made.
    """
    rows = next((check for check in checks if check.name == "sampled_rows"), None)
    numbers = {item.name: item.value for item in rows.measurements} if rows else {}
    if rows is None or rows.outcome != "passed":
        note = "The relation is measured once descent is verified row by row."
        return Measurement(relation="unknown", check=Check(name="measured_relation", outcome="not_run", note=note))
    relation, words = _named(numbers, drift)
    deep = next((check for check in checks if check.name == "delta_rank"), None)
    if deep is not None and relation in {"finetune", "adapter"}:
        relation, words = _with_rank(deep, numbers, relation, words)
    wanted = ("relative_drift_median", "zeroed_share_median", "levels_ratio_median", "delta_rank_highest")
    check = Check(
        name="measured_relation",
        outcome="passed",
        measurements=(
            *(item for item in rows.measurements if item.name in wanted),
            Measured(name="narrow_tensors", value=_narrow(drift), unit="share"),
        ),
        note=words,
    )
    return Measurement(relation=relation, check=check)


def _with_rank(deep: Check, numbers: Mapping[str, float], relation: Relation, words: str) -> tuple[Relation, str]:
    """What hundreds of rows of a few matrices add to a sample of some dozen rows."""
    changed = max((m.value for m in deep.measurements if m.name == "tensors_changed"), default=0.0)
    pruned = numbers.get("zeroed_share_median", 0.0) >= PRUNED_SHARE  # zeros leave no rank as it was
    if deep.outcome == "passed" and relation == "finetune" and changed >= MIN_LOW_RANK_TENSORS and not pruned:
        return "adapter", f"{deep.note.removesuffix('.')}: {_LOW_RANK}"
    if deep.outcome == "failed":
        return "finetune", words if relation == "finetune" else f"{deep.note} Trained, in part at low rank."
    return relation, words.replace(_FULL_RANK, _HIDDEN_RANK) if deep.outcome == "not_run" else words


def settled_relation(relation: Relation, drift: DriftFacts | None) -> Relation:
    """Return ``identical`` when every parameter of the candidate was compared and none differs, else ``relation``.

    A copy with added rows, an own head, anything unread or any value that is not finite is no identical copy.
    """
    return "identical" if is_identical(drift) else relation


def is_identical(drift: DriftFacts | None) -> bool:
    """Whether every parameter of the candidate was compared, is finite, and is the base's."""
    if drift is None or not drift.tensors or drift.added_rows:
        return False
    whole = drift.coverage.parameters_compared == drift.coverage.parameters_total
    return whole and all(t.changed == 0 and t.nonfinite == 0 and t.base_nonfinite == 0 for t in drift.tensors)


def declared_or_measured(declared: Relation | None, measured: Relation) -> Relation:
    """Return the declared relation where the weights allow it, else the measured one."""
    fits = declared is not None and measured in COMPATIBLE.get(declared, frozenset())
    return declared if declared is not None and fits and measured != "adapter" else measured


def _named(numbers: Mapping[str, float], drift: DriftFacts | None) -> tuple[Relation, str]:
    """The relation and one sentence for people."""
    if is_identical(drift):
        return "identical", "Every value is the base's: an identical copy."
    if (coded := coded_relation(drift)) is not None:
        return coded
    if _narrow(drift) >= NARROW_TENSOR_SHARE:
        return "quantized", "Most tensors are stored in a narrower type than the base's: quantized."
    # Pruning leaves fewer values as well, but as many as there are entries left.
    alive = max(1.0 - numbers.get("zeroed_share_median", 0.0), 0.01)
    if numbers.get("levels_ratio_median", 1.0) <= FEW_LEVELS * alive:
        return "quantized", "Rows hold far fewer different values than the base's: rounded to a grid, as by quantizing."
    changed = numbers.get("tensors_changed", 0.0)
    if changed >= MIN_LOW_RANK_TENSORS and numbers.get("delta_rank_over_rows", 1.0) <= LOW_RANK_SHARE:
        rank = int(numbers["delta_rank_highest"])
        return "adapter", f"All {int(changed)} sampled changes have rank {rank} or less: {_LOW_RANK}"
    if 0 < changed < MIN_LOW_RANK_TENSORS and numbers.get("delta_rank_over_rows", 1.0) <= LOW_RANK_SHARE:
        rank = int(numbers["delta_rank_highest"])
        return "finetune", f"Of the sampled matrices only {int(changed)} changed, at rank {rank}: an edit."
    zeroed = numbers.get("zeroed_share_median", 0.0)
    pruned = f" {zeroed:.0%} of the base's entries are zero now: pruned." if zeroed >= PRUNED_SHARE else ""
    drifted = numbers.get("relative_drift_median", 0.0)
    far = _FAR if drifted >= FAR_DRIFT and not pruned else ""
    return "finetune", f"The weights moved by {drifted:.2g} of their size{_FULL_RANK}{far}{pruned}"


def _narrow(drift: DriftFacts | None) -> float:
    """Share of the compared matrices that only the candidate stores in a narrow type."""
    matrices = [t.spec for t in drift.tensors if len(t.spec.shape) > 1] if drift else []
    narrow = [s for s in matrices if s.candidate.dtype in NARROW_DTYPES and s.base.dtype not in NARROW_DTYPES]
    return len(narrow) / len(matrices) if matrices else 0.0
