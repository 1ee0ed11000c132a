"""From the findings of a report to what is put back, tensor by tensor. Pure: looks at no weights.

What the rules prove decides the form (``audit/rules.md``): HA201 and HA202 name rows, HA301, HA302 and HA401 may be a
low-rank component, HA303 and HA304 whole tensors that training did not reach, HA402 single dimensions, HA403 a row or
column, HA501 and HA502 entries of a vector, HA601 values that are not finite. Findings that were merged into one
(``audit.merging``) name the others in their measurements. A finding that names nothing that can be put back is left,
with the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from audit.records import SEVERITIES, AuditReport, Finding, Location, Severity, Token
from scanner.records import Rows

Form = Literal["whole", "component", "parts"]

_ROWS: Final = frozenset({"HA201", "HA202"})
_COMPONENT: Final = frozenset({"HA301", "HA302", "HA305", "HA401"})
_WHOLE: Final = frozenset({"HA303", "HA304"})
_DIMENSION: Final = frozenset({"HA402"})
_UNIT: Final = frozenset({"HA403"})
_VECTOR: Final = frozenset({"HA501", "HA502"})
_NONFINITE: Final = frozenset({"HA601"})
_ORDER: Final[Mapping[Form, int]] = {"whole": 0, "component": 1, "parts": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """Settings of ``restore``.

    ``prominence``: a singular component counts as an edit when it is at least so many times the median leading
    component of the same matrix in the other layers. ``least_severity``: findings below it are left.
    ``whole_tensors``: where a flagged matrix has no such component, put all of it back, and with it what fine-tuning
    taught it.
    """

    prominence: float = 3.0
    least_severity: Severity = "medium"
    whole_tensors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What is put back in one tensor, and the findings that say so.

    With ``parts``: ``rows`` and ``columns`` (half-open runs), ``dimensions`` (row, column), and with ``nonfinite``
    every NaN or infinity. ``spectral`` is true when a finding says that the change lies along one direction.
    """

    tensor: str
    form: Form
    rules: tuple[str, ...]
    rows: tuple[Rows, ...] = ()
    columns: tuple[Rows, ...] = ()
    dimensions: tuple[tuple[int, int], ...] = ()
    nonfinite: bool = False
    spectral: bool = False
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A finding that was not acted on, and why."""

    rule: str
    tensor: str | None
    why: str


@dataclass(slots=True)
class _Draft:
    """What findings add up to for one tensor."""

    forms: set[Form] = field(default_factory=set)
    rules: dict[str, None] = field(default_factory=dict)
    rows: set[Rows] = field(default_factory=set)
    columns: set[Rows] = field(default_factory=set)
    dimensions: set[tuple[int, int]] = field(default_factory=set)
    tokens: dict[int, Token] = field(default_factory=dict)
    nonfinite: bool = False
    spectral: bool = False


def plan_restore(report: AuditReport, options: RestoreOptions) -> tuple[tuple[Repair, ...], tuple[Left, ...]]:
    """Return what to put back, in the order of the report, and which findings are left."""
    drafts: dict[str, _Draft] = {}
    left: list[Left] = []
    for finding in report.findings:
        reason = _unsuitable(finding, options)
        for location in finding.locations:
            if reason is None and location.tensor is not None:
                reason = _add(drafts.setdefault(location.tensor, _Draft()), finding, location)
            if reason is not None:
                left.append(Left(rule=finding.rule_id, tensor=location.tensor, why=reason))
                break
    repairs = [_repair(name, draft) for name, draft in drafts.items() if draft.forms]
    return tuple(repairs), tuple(left)


def _unsuitable(finding: Finding, options: RestoreOptions) -> str | None:
    """Why a finding is not acted on at all; None when it may be."""
    known = _ROWS | _COMPONENT | _WHOLE | _DIMENSION | _UNIT | _VECTOR | _NONFINITE
    if finding.rule_id not in known:
        return "it names nothing that the base could replace"
    if SEVERITIES.index(finding.severity) < SEVERITIES.index(options.least_severity):
        return f"its severity, {finding.severity}, is below {options.least_severity}"
    return None


def _add(draft: _Draft, finding: Finding, location: Location) -> str | None:
    """Add one location of a finding; return why it says nothing that can be put back, None when it does."""
    form: Form = "parts"
    rule = finding.rule_id
    joined = {measurement.name[:5] for measurement in finding.measurements if measurement.name[5:6] == ":"}
    if rule not in _WHOLE and joined & _COMPONENT:
        rule = min(joined & _COMPONENT)
    draft.spectral |= "HA302" in joined
    if rule in _WHOLE or (rule in _VECTOR and not location.columns):
        form = "whole"
    elif rule in _COMPONENT:
        form = "component"
        draft.spectral |= rule == "HA302"
    elif rule in _DIMENSION:
        draft.dimensions |= {(row, column) for row, column in zip(_each(location.rows), _each(location.columns))}  # noqa: B905
    elif rule in _NONFINITE:
        draft.nonfinite = True
    elif rule in _VECTOR:
        draft.columns |= set(location.columns)
    else:
        draft.rows |= set(location.rows)
        draft.columns |= set(location.columns) if rule in _UNIT else set()
        draft.tokens |= {token.id: token for token in location.tokens}
        if not location.rows and not location.columns:
            return "it names no row or column"
    draft.forms.add(form)
    draft.rules |= dict.fromkeys((finding.rule_id, *sorted(joined)))
    return None


def _each(runs: Sequence[Rows]) -> Iterable[int]:
    return (index for start, stop in runs for index in range(start, stop))


def _repair(name: str, draft: _Draft) -> Repair:
    """The strongest form wins: a component taken away makes the dimensions flagged beside it those of the same edit."""
    form = min(draft.forms, key=lambda each: _ORDER[each])
    parts = form == "parts"
    return Repair(
        tensor=name,
        form=form,
        rules=tuple(draft.rules),
        rows=tuple(sorted(draft.rows)) if parts else (),
        columns=tuple(sorted(draft.columns)) if parts else (),
        dimensions=tuple(sorted(draft.dimensions)) if parts else (),
        nonfinite=draft.nonfinite,
        spectral=draft.spectral,
        tokens=tuple(draft.tokens.values()) if parts else (),
    )


def typical_leading_value(report: AuditReport, tensor: str) -> float | None:
    """Return the median leading singular value of the same matrix in the other layers; None with fewer than two.

    In weight units; the same matrix is one of equal role and shape.
    """
    own = next((record for record in report.drift if record.tensor == tensor), None)
    if own is None:
        return None
    values = sorted(
        record.singular_values[0]
        for record in report.drift
        if record.tensor != tensor
        and record.role == own.role
        and record.shape == own.shape
        and record.layer is not None
        and record.singular_values
    )
    return values[len(values) // 2] if len(values) > 1 else None
