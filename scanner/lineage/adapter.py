"""The lineage of an adapter: whether its factors fit the base that it is put on."""

from typing import Final

from scanner.records import Check, DriftFacts, LineageStatus, Measured
from scanner.weights.adapted import PutOn

FIT_SHARE: Final = 0.95
"""Least share of the adapter's parameters that must find a place in the base."""
_NOTE: Final = (
    "An adapter is added to the base that its user loads, so its changes to that base are known whatever it was "
    "trained on: the fit of names and shapes was checked, the training was not."
)


def check_fit(put_on: PutOn) -> tuple[LineageStatus, Check]:
    """Say whether the adapter can be put on the base; see docs/decisions/0004.

    ``contradicted`` when nothing fits and tensors of the very same names have other shapes, ``unverified`` when less
    than ``FIT_SHARE`` fits or modules of the adapter cannot be used.
    """
    total = put_on.alignment.parameters_total
    share = put_on.alignment.parameters_compared / total if total else 0.0
    status: LineageStatus = "verified" if share >= FIT_SHARE and not put_on.unused else "unverified"
    if not put_on.alignment.pairs and put_on.misfits:
        status = "contradicted"
    check = Check(
        name="adapter_fit",
        outcome="passed" if status == "verified" else "failed",
        measurements=(
            Measured(name="parameters_with_place", value=share, unit="share"),
            Measured(name="tensors_with_place", value=float(len(put_on.alignment.pairs)), unit="tensors"),
            Measured(name="tensors_of_other_shape", value=float(put_on.misfits), unit="tensors"),
            Measured(name="modules_unusable", value=float(put_on.unused), unit="modules"),
        ),
        note=_NOTE,
    )
    return status, check


def check_relation(drift: DriftFacts) -> Check:
    """The relation of an adapter is what its files are; says how large the changes and their ranks are."""
    spectra = [tensor.spectrum for tensor in drift.tensors if tensor.spectrum is not None and tensor.spectrum.exact]
    ranks = [float(len(spectrum.values)) for spectrum in spectra]
    largest = max((tensor.relative_l2 for tensor in drift.tensors), default=0.0)
    return Check(
        name="measured_relation",
        outcome="passed",
        measurements=(
            Measured(name="tensors_changed", value=float(sum(t.changed > 0 for t in drift.tensors)), unit="tensors"),
            Measured(name="delta_rank_highest", value=max(ranks, default=0.0)),
            Measured(name="relative_drift_highest", value=largest),
        ),
        note="The repository holds an adapter: what it adds is known exactly, tensor by tensor.",
    )
