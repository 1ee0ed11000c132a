"""Tells tensors that were merely stored in fewer bits from tensors that were trained as well."""

from collections.abc import Iterable

import numpy as np

from audit.thresholds import Profile
from scanner.lineage.coded import is_calibrated, leading_direction
from scanner.records import TensorDrift


def only_quantised(tensor: TensorDrift, profile: Profile) -> bool:
    """True when a quantiser's codes explain the size of the change: its energy is about what rounding leaves.

    Edits of single rows and elements do not show in that figure; ``audit.detectors.quantised`` looks for them.
    """
    ratio = tensor.coding.error_ratio if tensor.coding is not None else None
    return ratio is not None and ratio <= profile.value("quantised.most_tensor_ratio")


def only_cast(tensor: TensorDrift, profile: Profile) -> bool:
    """True when nothing differs, or by just the energy that casting the base to the candidate's dtype causes."""
    if tensor.changed == 0:
        return tensor.nonfinite == 0
    if tensor.coding is not None or tensor.rounding_floor <= 0:
        return False
    return abs(tensor.delta_l2 / tensor.rounding_floor - 1.0) <= profile.value("quantised.cast_tolerance")


def trained_as_well(coded: Iterable[TensorDrift], profile: Profile) -> str | None:
    """Why tensors in codes cannot be a mere quantised copy of the base, as a clause; None when they can.

    Either the errors are larger than the codes' distances explain, or many of them point into one direction, which
    rounding never does, but training does even where it hides below the rounding. Quantisers that are calibrated with
    text leave directions of their own, so that only the first counts for them.
    """
    tensors = tuple(coded)
    ratios = [r for t in tensors if t.coding is not None and (r := t.coding.error_ratio) is not None]
    middle = float(np.median(ratios)) if ratios else 0.0
    if not middle <= profile.value("quantised.most_ratio"):
        return f"the errors have {middle:.3g} times the energy that quantising causes"
    directions = [d for t in tensors if not is_calibrated(t) and (d := leading_direction(t)) is not None]
    if not directions:
        return None
    upper = float(np.quantile(directions, 0.75))
    if upper > profile.value("quantised.most_direction"):
        return f"a quarter of the changes has a direction with {upper:.3g} times the energy that rounding leaves in any"
    return None
