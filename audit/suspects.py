"""Which tokens the weights suspect: a pure function from the drift of the token tables to a short ranked list.

The rows that moved furthest for their frequency come first (``audit.row_drift``); rows that moved alone, while training
never touched the others, come before them, since an edited row is then all there is to see. A suspicion is no finding:
the probe tries these tokens on the model itself.
"""

from typing import Final

import numpy as np

from audit.row_drift import adjusted_row_drift
from scanner.records import F64, DriftFacts, TensorDrift, TokenTable

MOST: Final = 64
"""Tokens listed; the probe costs grow with them."""
_LEAST_ROWS: Final = 200
_TOKEN_ROLES: Final = ("embedding", "unembedding")


def suspects(drift: DriftFacts | None, tokens: TokenTable | None, *, most: int = MOST) -> tuple[int, ...]:
    """Return vocabulary ids, most suspect first, each once; empty when no token table moved.

    Args:
        drift: what moved.
        tokens: the vocabulary, for frequencies and control tokens; without it raw drift ranks.
        most: length of the list at most.
    """
    if drift is None:
        return ()
    tables = [t for t in drift.tensors if t.spec.role in _TOKEN_ROLES and len(t.row_delta_sq) > 1 and t.changed]
    lists = [_ranked(table, tokens, most) for table in tables]
    merged: dict[int, None] = {}
    for place in range(most):
        for ranked in lists:
            if place < len(ranked):
                merged.setdefault(ranked[place])
    return tuple(merged)[:most]


def _ranked(table: TensorDrift, tokens: TokenTable | None, most: int) -> list[int]:
    """Ids of one table's rows by suspicion."""
    rows = adjusted_row_drift(table, tokens, least=_LEAST_ROWS)
    judged = np.isfinite(rows.z)
    # Too few rows moved to fit a curve to: those that did are what was trained or written.
    score: F64 = np.where(judged, rows.z, -np.inf) if judged.any() else np.where(rows.touched, rows.prominence, -np.inf)
    if not judged.any() and np.isinf(rows.prominence[rows.touched]).any():
        score = np.where(rows.touched, rows.drift, -np.inf)
    order = np.argsort(-score, kind="stable")[:most]
    first = table.spec.rows[0]
    return [first + int(i) for i in order if np.isfinite(score[i])]
