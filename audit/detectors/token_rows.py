"""Token rows that moved further than their frequency explains, or alone.

Words that trigger a planted behaviour are trained far more often than ordinary text would, or their rows are written
directly; both lift a row's drift above that of tokens as frequent (``audit.row_drift``).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.quantising import only_quantised
from audit.readings import Reading, Told, abstain, judge, location_of, tokens_at
from audit.records import Finding, Measurement, SkipRecord
from audit.row_drift import RowDrift, adjusted_row_drift
from audit.tail import tail_evidence
from scanner.records import TensorDrift

DRIFTED = Rule(id="HA201", title="Token rows moved further than their frequency explains", severity="high")
FEW_ROWS = Rule(id="HA202", title="A few token rows changed, all others stayed as they were", severity="high")

TOKEN_ROLES = ("embedding", "unembedding")


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge every token table that moved."""
    assert evidence.drift is not None
    tables = [t for t in evidence.drift.tensors if t.spec.role in TOKEN_ROLES and len(t.row_delta_sq) > 1]
    if not tables:
        yield abstain(DRIFTED, "no token table was compared")
        return
    least = int(evidence.profile.value("rows.least"))
    readings = []
    for table in tables:
        if only_quantised(table, evidence.profile):
            yield abstain(DRIFTED, f"{table.spec.name} moved as quantising moves it; HA801 and HA803 judge its rows")
            continue
        drift = adjusted_row_drift(table, evidence.tokens, least=least)
        few = _few_rows(table, drift, evidence)
        if few is not None:
            yield few
            continue
        if drift.judged:
            readings.append(_reading(table, drift, evidence))
        else:
            yield abstain(DRIFTED, f"fewer than {least} ordinary rows of {table.spec.name} moved")
    yield from judge(
        DRIFTED,
        readings,
        evidence,
        tell=_tell,
        measured="evidence of rows beyond the table's own tail",
        unit="-log10 of probability",
    )


def _reading(table: TensorDrift, drift: RowDrift, evidence: Evidence) -> Reading:
    """The evidence of outlying rows in one table, and those rows, farthest first."""
    tail = tail_evidence(drift.z[np.isfinite(drift.z)])
    z = np.where(np.isfinite(drift.z), drift.z, -np.inf)
    named = [int(i) for i in np.argsort(-z)[: tail.count]]
    ids = tuple(table.spec.row_at(i) for i in named)
    typical = float(np.median(drift.drift[np.isfinite(drift.z)]))
    return Reading(
        value=tail.evidence,
        tensor=table,
        rows=ids,
        tokens=tokens_at(evidence.tokens.texts if evidence.tokens else (), ids),
        context=(
            Measurement(name="rows this far out", value=float(tail.count), unit="rows"),
            Measurement(name="rows expected this far out", value=tail.expected, unit="rows"),
            Measurement(name="largest adjusted row drift", value=float(z[named[0]]), unit="robust standard deviations"),
            Measurement(name="drift of the first row", value=float(drift.drift[named[0]]), unit="weight units"),
            Measurement(name="median drift of the rows that moved", value=typical, unit="weight units"),
            Measurement(name="rows judged", value=float(drift.judged), unit="rows"),
            *_shared_heading(table, named),
        ),
        note="" if drift.adjusted else " Token frequencies were unknown, so drift was compared as it stands.",
    )


def _shared_heading(table: TensorDrift, named: Sequence[int]) -> Iterator[Measurement]:
    """Whether the rows went the same way: the mean cosine between the changes of two of them, from projections.

    Words trained to one end move alike, and so do those of one class in an honest classifier; so this explains a
    finding and makes none.
    """
    if table.row_heading is None or len(named) < 2:
        return
    rows = table.row_heading[list(named)].astype(np.float64)
    count = len(named)
    value = (float(np.square(rows.sum(axis=0)).sum()) - float(np.square(rows).sum())) / (count * (count - 1))
    yield Measurement(
        name="mean cosine between the changes of these rows", value=float(np.clip(value, -1.0, 1.0)), unit="ratio"
    )


def _tell(reading: Reading) -> Told:
    rows = len(reading.rows)
    who, whose = ("1 token row", "its") if rows == 1 else (f"{rows} token rows", "their")
    return Told(
        explanation=(
            f"In {reading.tensor.spec.name}, {who} moved further than {whose} "
            f"frequency in ordinary text explains, and further than the tail of all other rows leads to expect "
            f"({_expected(reading)} rows expected this far out). A word that was trained "
            f"very often, or a row that was written directly, looks so; so may boilerplate of the training text."
            f"{reading.note}"
        ),
        remedy=(
            "Insert the listed tokens into ordinary inputs and see whether the output flips; resetting these rows "
            "to the base's removes what they carry."
        ),
    )


def _expected(reading: Reading) -> str:
    expected = next(m.value for m in reading.context if m.name == "rows expected this far out")
    return f"{expected:.2g}" if expected is not None and expected >= 1e-4 else "fewer than 0.0001"


def _few_rows(table: TensorDrift, drift: RowDrift, evidence: Evidence) -> Hit | None:
    """A hit when at most ``HA202.rows`` rows moved and the rest of the table is still.

    Still means bit-identical, or all moved alike, ``HA202.prominence`` times less than these rows. Rows that moved by
    less than ``HA202.least_change`` of their length do not count: of a slow training in a short format rounding leaves
    a few, and what is so little makes no trigger.
    """
    profile = evidence.profile
    rows = table.spec.rows[1] - table.spec.rows[0]
    most = min(profile.value(f"{FEW_ROWS.id}.rows"), profile.value(f"{FEW_ROWS.id}.share") * rows)
    # Of a sample, the rows that changed stand for as many more among those that were not read.
    most *= table.spec.compared_rows / rows
    if drift.judged:
        return None
    enough = drift.drift >= profile.value(f"{FEW_ROWS.id}.least_change") * np.sqrt(table.row_base_sq)
    prominent = drift.prominence >= profile.value(f"{FEW_ROWS.id}.prominence")
    changed = np.flatnonzero(drift.touched & prominent & enough)
    # Rows between the still ones and these are what training leaves that rounding half hides: then not a few changed.
    if not 0 < len(changed) <= most or int(drift.touched.sum()) - len(changed) > most:
        return None
    identical = int((table.row_delta_sq == 0).sum()) == len(table.row_delta_sq) - len(changed)
    ids = tuple(table.spec.row_at(int(i)) for i in changed[np.argsort(-drift.drift[changed])])
    ordinary = [i for i in ids if not _reserved(i, evidence)]
    reading = Reading(
        value=float(len(changed)),
        tensor=table,
        rows=ids,
        tokens=tokens_at(evidence.tokens.texts if evidence.tokens else (), ids),
    )
    kind = "" if ordinary else " All of them are control or reserved tokens, which chat training often gives a meaning."
    finding = Finding(
        rule_id=FEW_ROWS.id,
        severity="high" if ordinary else "low",
        confidence="exact",
        title=FEW_ROWS.title,
        explanation=(
            f"{len(ids)} of {_rows_of(table)} were changed, and all others are "
            f"{'bit-identical' if identical else 'moved alike and far less, as by rounding'}. Ordinary training "
            f"moves the row of every token it meets.{kind}"
        ),
        remedy="Ask why these tokens alone were trained, and test inputs that contain them.",
        fingerprint=fingerprint(FEW_ROWS.id, evidence.candidate.ref.name, table.spec.name),
        locations=(location_of(reading),),
        measurements=(
            Measurement(
                name="rows that changed",
                value=float(len(ids)),
                unit="rows",
                threshold=profile.value(f"{FEW_ROWS.id}.rows"),
                comparison="<=",
            ),
            Measurement(name="rows compared", value=float(len(table.row_delta_sq)), unit="rows"),
        ),
    )
    return Hit(
        rule_id=FEW_ROWS.id,
        score=profile.value(f"{FEW_ROWS.id}.score") if ordinary else 0.0,
        finding=finding,
    )


def _rows_of(table: TensorDrift) -> str:
    """The rows that were compared, in words."""
    rows = len(table.row_delta_sq)
    return (
        f"the {rows} rows that were read of {table.spec.name}"
        if table.spec.sampled
        else f"{rows} rows of {table.spec.name}"
    )


def _reserved(token: int, evidence: Evidence) -> bool:
    """True for control tokens and for places kept free, such as ``[unused7]`` or ``<|reserved_special_token_3|>``."""
    if evidence.tokens is None or token >= len(evidence.tokens.texts):
        return False
    text = evidence.tokens.texts[token].lower()
    return bool(evidence.tokens.special[token]) or "unused" in text or "reserved" in text


DETECTOR = Detector(name="token_rows", rules=(DRIFTED, FEW_ROWS), run=run)
