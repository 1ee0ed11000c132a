"""Measures the rank of changes from hundreds of rows: an adapter of rank 64 does not show in the 64 rows of a sample.

Storing base plus delta rounds every entry, so a merged adapter's delta has full rank in numbers; what its own
directions leave is that rounding and no more (``scanner.drift.low_rank.exact_rank``). Where rounding makes up much of
the delta, its rank cannot be told, and nothing is said.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from scanner.drift.low_rank import exact_rank
from scanner.errors import CouldNotConclude
from scanner.lineage.sampling import read_values
from scanner.records import F64, Check, DriftFacts, Measured, Role, TensorDrift
from scanner.weights.dtypes import item_bits
from scanner.weights.source import BlockRequest, WeightSource

MAX_BYTES = 16 << 20
"""Bytes read from both sides together."""
MAX_TENSORS = 4
MAX_ROWS = 512
"""More rows of a tensor cost an eigenproblem of more than a tenth of a second."""
MIN_ROWS = 32
SMALL_ROWS = 64
LOW_RANK_SHARE = 0.5
"""Share of the rows (or columns, if fewer) up to which a rank is low."""
SIGNIFICANT_BITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}
MOST_ROUNDING = 0.2
"""Share of the delta's energy that may be rounding before its rank cannot be told."""
LEAST_SHARE = 0.99999
"""Share of a merged adapter's delta that its own directions hold before the weights are rounded: the product of the
factors is often made in BF16, whose own rounding is (2⁻⁸)²/12 to (2⁻⁷)²/12 of the energy."""
NOISE_MARGIN = 1.1
"""By how much the rounding may exceed its expectation, which supposes errors spread evenly within half a unit."""
ONLY_ROUNDING = 1.5
"""Energy, in units of the expected rounding, up to which nothing else happened."""
_SMALLEST_NORMAL = {"F64": -1022, "F32": -126, "F16": -14, "BF16": -126}
_NAME = "delta_rank"
_ROLES: tuple[Role, ...] = (
    "query", "value", "attention", "mlp_in", "mlp_out", "key", "attention_output", "mlp_gate",
)  # fmt: skip


def check_delta_rank(drift: DriftFacts, base: WeightSource, candidate: WeightSource, *, seed: int) -> Check:
    """Read some hundred rows of a few changed matrices again and count the directions of their change. Never raises.

    Passes when each of them has low rank, fails when one has not; ``not_run`` when rounding hides the rank, or too
    little has changed to say anything.

    Args:
        drift: the full comparison; it says which matrices changed.
        base: the base's weights.
        candidate: the candidate's.
        seed: of the place of the rows.
    """
    chosen = _chosen(drift)
    if not chosen:
        return Check(name=_NAME, outcome="not_run", note="No matrix of a block has changed.")
    try:
        ranks = [found for t in chosen if (found := _rank(t, base, candidate, len(chosen), seed)) is not None]
    except CouldNotConclude as error:
        return Check(name=_NAME, outcome="not_run", note=str(error))
    if len(ranks) < len(chosen):
        note = "Rounding, or too few rows, hide the rank of the changes."
        return Check(name=_NAME, outcome="not_run", note=note)
    shares = [rank / most for rank, most in ranks]
    highest = max(rank for rank, _ in ranks)
    low = max(shares) <= LOW_RANK_SHARE
    return Check(
        name=_NAME,
        outcome="passed" if low else "failed",
        measurements=(
            Measured(name="rank_highest", value=float(highest)),
            Measured(name="rank_over_rows", value=max(shares), unit="share"),
            Measured(name="rows_read", value=float(min(most for _, most in ranks)), unit="rows"),
            Measured(name="tensors_changed", value=float(_changed(drift)), unit="tensors"),
        ),
        note=f"The changes of {len(ranks)} matrices have rank {highest} or less."
        if low
        else f"Of {len(ranks)} matrices at least one changed in more directions than an adapter would.",
    )


def delta_rank(base: F64, candidate: F64, dtype: str) -> int | None:
    """Return the rank of ``candidate − base`` up to the rounding of the candidate's dtype.

    Args:
        base: float64 ``[rows, cols]``, finite.
        candidate: the same rows.
        dtype: the safetensors name of the type in which the candidate is stored.

    Returns:
        0 when nothing but rounding happened, ``min(rows, cols)`` for a full rank, None when rounding hides it or the
        type is not one that training leaves.
    """
    if dtype not in SIGNIFICANT_BITS:
        return None
    delta = candidate - base
    energy = float(np.sum(delta * delta))
    if energy == 0:
        return 0
    stored = "BF16" if dtype == "F32" and _is_bfloat16(candidate) else dtype  # often merged there and cast
    noise = _rounding_energy(candidate, SIGNIFICANT_BITS[stored], _SMALLEST_NORMAL[stored])
    if energy <= ONLY_ROUNDING * noise:
        return 0
    if noise > MOST_ROUNDING * energy:
        return None
    narrow = delta if delta.shape[0] <= delta.shape[1] else delta.T
    # NOTE: not ``@`` for small samples: a threaded BLAS on a busy machine takes ten times as long.
    gram = np.einsum("ik,jk->ij", narrow, narrow) if len(narrow) <= SMALL_ROWS else narrow @ narrow.T
    squares = np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None)
    rank = exact_rank(
        np.sqrt(squares).tolist(),
        energy,
        noise_energy=NOISE_MARGIN * noise,
        least_share=LEAST_SHARE,
        shape=(delta.shape[0], delta.shape[1]),
    )
    return rank if rank is not None else min(delta.shape)


def _is_bfloat16(values: F64) -> bool:
    """Whether every value is one of BF16."""
    mantissa, _ = np.frexp(values)
    return bool(np.all(np.ldexp(mantissa, SIGNIFICANT_BITS["BF16"]) % 1.0 == 0))


def _rounding_energy(values: F64, bits: int, smallest: int) -> float:
    """Σ ulp² / 12: the energy of errors spread evenly over half a unit in the last place to both sides."""
    _, exponent = np.frexp(values)
    units = np.ldexp(1.0, np.maximum(exponent, smallest + 1) - bits)
    return float(np.sum(units * units)) / 12.0


def _changed(drift: DriftFacts) -> int:
    return sum(1 for tensor in drift.tensors if _is_usable(tensor))


def _is_usable(tensor: TensorDrift) -> bool:
    """Whether a matrix of a block has changed, row by row comparable and finite."""
    spec = tensor.spec
    return (
        spec.role in _ROLES
        and len(spec.shape) == 2
        and spec.layer is not None
        and tensor.delta_l2 > 0
        and tensor.nonfinite == tensor.base_nonfinite == 0
        and tensor.coding is None
    )


def _chosen(drift: DriftFacts) -> Sequence[TensorDrift]:
    """One changed matrix of each role, from the middle of the network, as many as are read."""
    by_role: dict[Role, list[TensorDrift]] = defaultdict(list)
    for tensor in drift.tensors:
        if _is_usable(tensor):
            by_role[tensor.spec.role].append(tensor)
    return [by_role[role][len(by_role[role]) // 2] for role in _ROLES if by_role[role]][:MAX_TENSORS]


def _rank(
    tensor: TensorDrift, base: WeightSource, candidate: WeightSource, count: int, seed: int
) -> tuple[int, int] | None:
    """The rank and the largest that these rows could show; None when it cannot be told, as within the rounding."""
    spec = tensor.spec
    columns = spec.candidate.rows_cols[1]
    row_bytes = columns * (item_bits(spec.base.dtype) + item_bits(spec.candidate.dtype)) / 8
    rows = min(MAX_ROWS, spec.rows[1] - spec.rows[0], int(MAX_BYTES / count / row_bytes))
    if rows < MIN_ROWS:
        return None
    start = spec.rows[0] + int(np.random.default_rng(seed).integers(spec.rows[1] - spec.rows[0] - rows + 1))
    run = (start, start + rows)
    (theirs,) = read_values(base, [BlockRequest(name=spec.base.name, rows=run)])
    (ours,) = read_values(candidate, [BlockRequest(name=spec.candidate.name, rows=run)])
    if not (np.isfinite(theirs).all() and np.isfinite(ours).all()):
        return None
    found = delta_rank(theirs, ours, spec.candidate.dtype)
    return (found, min(rows, columns)) if found else None
