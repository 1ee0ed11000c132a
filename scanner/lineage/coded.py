"""Names the relation of a checkpoint in a quantiser's codes: a quantised copy, or one that was trained before."""

import numpy as np

from scanner.records import DriftFacts, Relation, TensorDrift

CODED_SHARE = 0.5
"""Share of the matrices that has to lie in codes."""
TRAINED_FRACTION = 0.5
"""Share of the values of a matrix outside of the codes whose change, beyond a cast, is more than an edit."""
MOST_RATIO = 3.0
"""Median error energy over the expected, up to which quantising alone explains the change. Measured: 0.75 to 1.1 for
every scheme and kind that is read, importance matrices included, and 1.8 to 2.4 for GPTQ with its error feedback; a
fine-tune of the same encoder in 8 bits has over a hundred."""

MOST_DIRECTION = 2.0
"""Upper quartile of ``leading_direction`` up to which the changes are noise. Measured on an encoder of 22 M parameters:
1.4 to 1.7 for copies in every scheme; 2.4 to 2.9 for its fine-tune in 4 bits, where training hides below the rounding,
and 17 or more in 8 bits."""
CAST_TOLERANCE = 1e-6
"""Relative difference between the change and that of a cast; sums differ by less."""


def coded_relation(drift: DriftFacts | None) -> tuple[Relation, str] | None:
    """Return the relation and one sentence on its grounds; None when most of the weights are not in codes.

    A cast to a narrower float that changed nothing else counts as quantised, as on the Hub.
    """
    tensors = drift.tensors if drift is not None else ()
    changed = [tensor for tensor in tensors if tensor.changed]
    if changed and all(_only_cast(tensor) for tensor in changed):
        return "quantized", "Every change is the rounding of a cast to fewer bits."
    coded = [tensor for tensor in tensors if tensor.coding is not None]
    matrices = [tensor for tensor in tensors if len(tensor.spec.shape) > 1]
    if not coded or len(coded) < CODED_SHARE * len(matrices):
        return None
    ratios = [t.coding.error_ratio for t in coded if t.coding is not None and t.coding.error_ratio is not None]
    if not ratios:
        return None
    middle = float(np.median(ratios))
    schemes = ", ".join(sorted({t.coding.scheme for t in coded if t.coding is not None}))
    stored = f"Stored as {schemes}, and {middle:.2g} times the error energy that this causes"
    free = [t for t in coded if not is_calibrated(t)]
    directions = [direction for t in free if (direction := leading_direction(t)) is not None]
    if directions and float(np.quantile(directions, 0.75)) > MOST_DIRECTION:
        return "finetune", f"{stored}, but many changes have a direction, which rounding never leaves: trained as well."
    if any(t.coding is None and t.changed_fraction > TRAINED_FRACTION and not _only_cast(t) for t in matrices):
        return "finetune", f"{stored}, but matrices outside of the codes changed as well: trained."
    if middle <= MOST_RATIO:
        below = "" if free else " Training too slight to exceed that would not show."
        return "quantized", f"{stored}: quantized.{below}"
    return "finetune", f"{stored}: trained as well."


def is_calibrated(tensor: TensorDrift) -> bool:
    """Whether the codes were, or may have been, chosen with text: GPTQ, AWQ and what shares their formats.

    Such quantisers move errors into directions that the text does not use: the first holds up to a hundred times the
    energy that even noise would leave in it (benchmarks/quantised.py), so that directions say nothing about training.
    """
    coding = tensor.coding
    return (
        coding is not None and not coding.nearest and coding.reproduced is None and not coding.scheme.startswith("GGUF")
    )


def leading_direction(tensor: TensorDrift) -> float | None:
    """Energy of the delta's first direction over that of noise spread evenly: about 1 for rounding, more for training.

    Noise of ‖Δ‖² in m rows and n columns has s₁² near ‖Δ‖² (√m + √n)² / (m n), the edge of Marchenko and Pastur (1967).
    None without a spectrum.
    """
    spectrum = tensor.spectrum
    rows, columns = len(tensor.row_delta_sq), tensor.spec.candidate.rows_cols[1]
    if spectrum is None or not spectrum.values or spectrum.energy <= 0 or min(rows, columns) < 1:
        return None
    edge = spectrum.energy * (np.sqrt(rows) + np.sqrt(columns)) ** 2 / (rows * columns)
    return float(spectrum.values[0] ** 2 / edge)


def _only_cast(tensor: TensorDrift) -> bool:
    """Whether the delta has just the energy that casting the base causes."""
    if tensor.coding is not None or tensor.rounding_floor <= 0:
        return False
    return abs(tensor.delta_l2 / tensor.rounding_floor - 1.0) <= CAST_TOLERANCE
