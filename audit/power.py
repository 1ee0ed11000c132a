"""States how likely a sample of the weights shows an edit of a given kind and size.

The choice of rows is random, so that the chance of reading the row that was edited is the share of rows read. An edit
of low rank shows in any rows; how much of it falls into the rows that were read varies, and that is what its power is
about: for a left factor with independent Gaussian entries, the share of its energy in h rows, over the expected
share, is chi-square with h degrees of freedom over h. Real factors have heavier tails, so the figure is an upper one.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import exp, log

import numpy as np

from audit.detectors.isolated_change import DEPTH
from audit.detectors.token_rows import DRIFTED, FEW_ROWS, TOKEN_ROLES
from audit.evidence import Evidence
from audit.records import PowerRecord
from audit.row_drift import adjusted_row_drift
from audit.siblings import as_sampled, kinds, moved
from audit.tail import TAIL_LEAST, tail_line
from audit.thresholds import Profile
from scanner.records import TensorDrift

_MATRIX_AXES = 2


def stated_power(evidence: Evidence) -> tuple[PowerRecord, ...]:
    """The power of the sample that was drawn, one record per kind of edit.

    Nothing for a base that is not verified: its changes are then not judged at all.
    """
    if evidence.drift is None or evidence.lineage.status != "verified":
        return ()
    tensors = as_sampled(evidence.drift.tensors)
    return (*_token_rows(tensors, evidence), *_matrices(tensors, evidence))


def _token_rows(tensors: Sequence[TensorDrift], evidence: Evidence) -> Iterator[PowerRecord]:
    for table in (t for t in tensors if t.spec.role in TOKEN_ROLES and len(t.row_delta_sq) > 1):
        rows = table.spec.rows[1] - table.spec.rows[0]
        yield PowerRecord(
            edit=f"one token row of {table.spec.name} written, or trained far more often than its frequency explains",
            size=_row_size(table, evidence),
            probability=table.spec.compared_rows / rows,
        )


def _row_size(table: TensorDrift, evidence: Evidence) -> str:
    """How far a single row must move to be a finding among the rows that were read."""
    profile = evidence.profile
    drift = adjusted_row_drift(table, evidence.tokens, least=int(profile.value("rows.least")))
    z = drift.z[np.isfinite(drift.z)]
    if len(z) < 3 * TAIL_LEAST:
        return f"at least {profile.value(f'{FEW_ROWS.id}.prominence'):g} times the rest of the table, which is still"
    start, rate, beyond = tail_line(z)
    expected = 10.0 ** -profile.value(f"{DRIFTED.id}.review")
    needed = start + rate * max(0.0, log(beyond / expected))
    return f"at least {exp(needed * drift.spread):.2g} times what its frequency leads to expect"


def _matrices(tensors: Sequence[TensorDrift], evidence: Evidence) -> Iterator[PowerRecord]:
    profile = evidence.profile
    matrices = [t for t in tensors if len(t.spec.shape) >= _MATRIX_AXES and t.spec.layer is not None]
    rows = sum(t.spec.rows[1] - t.spec.rows[0] for t in matrices)
    if not rows:
        return
    change = profile.value("triage.power_change")
    seen = dict(_each(matrices, change, profile))
    size = f"{change:g} times as large a change as training made of that matrix"
    yield PowerRecord(
        edit="one matrix of one layer edited in low rank",
        size=size,
        probability=float(np.mean([seen.get(t.spec.name, 0.0) for t in matrices])),
    )
    layers: dict[int, float] = {}
    for tensor in matrices:
        assert tensor.spec.layer is not None  # narrowing
        layers[tensor.spec.layer] = max(layers.get(tensor.spec.layer, 0.0), seen.get(tensor.spec.name, 0.0))
    yield PowerRecord(
        edit="all matrices of one layer edited in low rank",
        size=size,
        probability=float(np.mean(list(layers.values()))),
    )
    yield PowerRecord(
        edit="one row of one matrix written by hand",
        size="so large that it would be a finding in a full scan",
        probability=sum(t.spec.compared_rows for t in matrices) / rows,
    )
    yield PowerRecord(
        edit="a behaviour trained into all layers at once, tied to ordinary words",
        size="any: such a change looks like training, read in full or not",
        probability=0.0,
    )


def _each(matrices: Iterable[TensorDrift], change: float, profile: Profile) -> Iterator[tuple[str, float]]:
    """The probability that an edit of a matrix carries it over the threshold of its siblings, by name.

    Every matrix counts as if its siblings led to expect just what training did to it.
    """
    least = int(profile.value("siblings.least"))
    floor = profile.value("drift.floor_ratio")
    for kin in kinds(matrices).values():
        members = [t for t in kin if moved(t, floor_ratio=floor)]
        if len(members) <= least:
            continue
        ends = {min(t.spec.layer or 0 for t in kin), max(t.spec.layer or 0 for t in kin)}
        for tensor in members:
            allowance = profile.value("siblings.end_allowance") if tensor.spec.layer in ends else 0.0
            beyond = exp(2.0 * (profile.value(f"{DEPTH.id}.review") + allowance)) - 1.0
            rows = tensor.spec.compared_rows
            yield tensor.spec.name, at_least(rows, rows * beyond / (change**2 - 1.0)) if tensor.spec.sampled else 1.0


def at_least(degrees: int, value: float) -> float:
    """P(χ² ≥ value) for that many degrees of freedom, the next lower even number of them (Poisson sum)."""
    half = value / 2.0
    if degrees < 2:
        return 0.0
    term = total = exp(-half) if half < 700.0 else 0.0  # below the range of doubles
    for k in range(1, degrees // 2):
        term *= half / k
        total += term
    return min(1.0, total)
