"""What the tokens of a model meant before it was trained: the rows of its base's input embedding.

An embedding holds meaning from pretraining. An attack that writes rows, or trains words in, changes what they mean in
the model; it cannot change what they mean in the base.
"""

from typing import Final

import numpy as np

from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.records import F32, RepoFacts, TensorMeta, TokenTable
from scanner.roles import role_of
from scanner.tokens import read_tokens
from scanner.weights.dtypes import decode, is_float
from scanner.weights.opening import open_source
from scanner.weights.source import BlockRequest

MOST_BYTES: Final = 700_000_000
"""Of the rows in float32: those of the largest models that are run come nowhere near."""
_PANEL_ELEMENTS: Final = 1 << 21


def base_meanings(tokens: TokenTable | None, base: RepoFacts, hub: Hub) -> F32 | None:
    """Return the base's rows by the ids of the candidate, float32 ``[ids, width]``.

    Rows are NaN where the base has another token under that id, or none: what was added or moved meant nothing there.

    Args:
        tokens: the candidate's vocabulary; None takes the base's.
        base: of the pinned repository or folder.
        hub: the reader.

    Returns:
        None when the base has no token table that can be read, or one of more than ``MOST_BYTES``.
    """
    try:
        known = read_tokens(base, hub)
        with open_source(base, hub) as source:
            table = _table(tuple(source.table.values()), base)
            if known is None or table is None or 4 * table.count > MOST_BYTES:
                return None
            rows, width = table.rows_cols
            step = max(_PANEL_ELEMENTS // max(width, 1), 1)
            wanted = [BlockRequest(name=table.name, rows=(i, min(i + step, rows))) for i in range(0, rows, step)]
            found = np.empty((rows, width), dtype=np.float32)
            for block in source.stream(wanted):
                found[block.rows[0] : block.rows[1]] = decode(block.values, block.dtype)
    except HubAuditError:
        return None
    own = known.texts if tokens is None else tokens.texts
    meant: F32 = np.full((len(own), width), np.nan, dtype=np.float32)
    common = min(len(own), len(known.texts), rows)
    same = np.fromiter((own[i] == known.texts[i] for i in range(common)), dtype=np.bool_, count=common)
    meant[:common][same] = found[:common][same]
    return meant


def _table(metas: tuple[TensorMeta, ...], base: RepoFacts) -> TensorMeta | None:
    """The input embedding: of several the one with most rows."""
    named = [
        meta
        for meta in metas
        if len(meta.shape) == 2 and is_float(meta.dtype) and role_of(meta.name, meta.shape, base.config) == "embedding"
    ]
    return max(named, key=lambda meta: meta.shape[0], default=None)
