"""Tells tensors that were merely stored in fewer bits from tensors that were trained as well."""

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
