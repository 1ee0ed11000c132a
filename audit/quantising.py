"""Tells tensors that were merely stored in fewer bits from tensors that were trained as well."""

from collections.abc import Iterable

import numpy as np

from audit.thresholds import Profile
from scanner.records import TensorDrift


def only_quantised(tensor: TensorDrift, profile: Profile) -> bool:
    """True when a quantiser's codes explain the size of the change: its energy is about what rounding leaves.

    Edits of single rows and elements do not show in that figure; ``audit.detectors.quantised`` looks for them.
    """
    ratio = tensor.coding.error_ratio if tensor.coding is not None else None
    return ratio is not None and ratio <= profile.value("quantised.most_ratio")


def only_cast(tensor: TensorDrift, profile: Profile) -> bool:
    """True when nothing differs, or by just the energy that casting the base to the candidate's dtype causes."""
    if tensor.changed == 0:
        return tensor.nonfinite == 0
    if tensor.coding is not None or tensor.rounding_floor <= 0:
        return False
    return abs(tensor.delta_l2 / tensor.rounding_floor - 1.0) <= profile.value("quantised.cast_tolerance")


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


def trained_as_well(coded: Iterable[TensorDrift], profile: Profile) -> str | None:
    """Why tensors in codes cannot be a mere quantised copy of the base, as a clause; None when they can.

    Either the errors are larger than the codes' distances explain, or many of them point into one direction, which
    rounding never does, but training does even where it hides below the rounding.
    """
    tensors = tuple(coded)
    ratios = [r for t in tensors if t.coding is not None and (r := t.coding.error_ratio) is not None]
    middle = float(np.median(ratios)) if ratios else 0.0
    if not middle <= profile.value("quantised.most_ratio"):
        return f"the errors have {middle:.3g} times the energy that quantising causes"
    directions = [d for t in tensors if (d := leading_direction(t)) is not None]
    if not directions:
        return None
    upper = float(np.quantile(directions, 0.75))
    if upper > profile.value("quantised.most_direction"):
        return f"a quarter of the changes has a direction with {upper:.3g} times the energy that rounding leaves in any"
    return None
