"""Accepted findings: the baseline file, and what its entries do to the findings of one audit.

An entry accepts one rule at one place (its fingerprint) for a written reason until a day. An accepted finding stays
in the report and is marked; it no longer counts for the outcome. From the day after, it counts again and the report
says so. The file is YAML, or JSON, which is read as YAML::

    suppressions:
      - fingerprint: 8f3a1c0b5d7e9f21
        reason: The rows of these tokens were retrained on purpose, see issue 12.
        expires: 2027-06-30
        model: org/name          # optional; other models then never see the entry
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from typing import Any

import yaml

from audit.evidence import Hit
from audit.records import Suppression
from scanner.errors import BadReference
from scanner.paths import shown
from scanner.plain_yaml import BadYaml, load_mapping

MAX_FILE_BYTES = 1 << 20
MAX_ENTRIES = 10_000
NAMED = 5
"""Entries that a note names; of more it says how many."""

_KEYS = ("fingerprint", "reason", "expires", "model")
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LEADING_TABS = re.compile(r"(?m)^[ \t]*\t[ \t]*")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BadBaseline(BadReference):
    """The baseline file cannot be understood; the sentence names the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One accepted finding. ``expires`` is the last day on which it counts; ``model`` None means any model."""

    fingerprint: str
    reason: str
    expires: date
    model: str | None
    line: int

    def holds(self, today: date) -> bool:
        """Whether the entry still counts on that day."""
        return today <= self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """Hits with the accepted findings marked, and what a reader has to be told about the baseline."""

    hits: tuple[Hit, ...]
    notes: tuple[str, ...] = ()


def parse_baseline(text: str, name: str = "baseline") -> tuple[Entry, ...]:
    """Read a baseline file.

    Args:
        text: of the file.
        name: of the file, for messages.

    Raises:
        BadBaseline: not YAML, an unknown or missing key, a value of the wrong kind, a fingerprint twice for one model.
    """
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        # JSON may be indented with tabs, where YAML may not; no JSON text runs over a line end.
        text = _LEADING_TABS.sub(lambda found: " " * len(found[0]), text)
    try:
        content, repeated = load_mapping(text)
    except BadYaml as error:
        where = "" if "(line" in str(error) else ", line 1,"
        raise BadBaseline(f"{name}{where} {error}; the file is a mapping with the key suppressions.") from error
    if repeated or set(content) - {"suppressions"}:
        raise BadBaseline(f"{name}, line 1: the file holds one key, suppressions, with a list of entries.")
    listed = content.get("suppressions")
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > MAX_ENTRIES:
        raise BadBaseline(f"{name}, line 1: suppressions is a list of at most {MAX_ENTRIES:,} entries.")
    lines = _lines(text)
    entries = tuple(_entry(fields, line, f"{name}, line {line}") for fields, line in zip(listed, lines, strict=True))
    first: dict[tuple[str, str | None], int] = {}
    for entry in entries:
        before = first.setdefault((entry.fingerprint, entry.model), entry.line)
        if before != entry.line:
            raise BadBaseline(
                f"{name}, line {entry.line}: {entry.fingerprint} stands in line {before} already; keep one of the two."
            )
    return entries


def _lines(text: str) -> list[int]:
    """Return the line (from 1) of each entry."""
    root: Any = yaml.compose(text, Loader=_Loader)
    listed = next(value for key, value in root.value if key.value == "suppressions")
    return [node.start_mark.line + 1 for node in listed.value]


def _entry(fields: object, line: int, where: str) -> Entry:
    if not isinstance(fields, dict):
        raise BadBaseline(f"{where}: an entry is a mapping with the keys {', '.join(_KEYS)}.")
    for key in fields:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(_KEYS)}."
            raise BadBaseline(f"{where}: there is no key {shown(key)}; {hint}")
    model = fields.get("model")
    if model is not None and not (isinstance(model, str) and model.strip()):
        raise BadBaseline(f"{where}: model is the name of one model, as in org/name.")
    return Entry(
        fingerprint=_fingerprint(fields.get("fingerprint"), where),
        reason=_reason(fields.get("reason"), where),
        expires=_day(fields.get("expires"), where),
        model=model.strip() if model else None,
        line=line,
    )


def _fingerprint(value: object, where: str) -> str:
    # A fingerprint of digits alone is a number to YAML, and leading zeros are then lost: it has to be quoted.
    if isinstance(value, int | float):
        raise BadBaseline(f'{where}: put the fingerprint in quotes, fingerprint: "{shown(str(value))}".')
    if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value.strip()):
        raise BadBaseline(f"{where}: fingerprint is missing or is none; copy it from the report (16 hex digits).")
    return value.strip()


def _reason(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadBaseline(f"{where}: reason is missing; say in a sentence why this finding is accepted.")
    return " ".join(value.split())


def _day(value: object, where: str) -> date:
    try:
        if isinstance(value, str) and _DAY.fullmatch(value.strip()):
            return date.fromisoformat(value.strip())
    except ValueError:
        pass
    raise BadBaseline(f"{where}: expires is missing or is no day; write it as 2027-06-30.")


def suppress(hits: Sequence[Hit], entries: Iterable[Entry], *, model: str, today: date) -> Suppressed:
    """Mark the accepted findings.

    Args:
        hits: of one audit, before findings about one tensor are merged: an entry accepts one rule, and what another
            rule says of the same tensor still counts.
        entries: of the baseline.
        model: the name of the subject; entries for other models are left alone.
        today: the day of the audit, in UTC.
    """
    mine = [entry for entry in entries if entry.model in {None, model}]
    # An entry for this very model comes before one for any.
    active = {entry.fingerprint: entry for entry in sorted(mine, key=lambda entry: entry.model is not None)}
    marked = tuple(_marked(hit, active, today) for hit in hits)
    present = {hit.finding.fingerprint for hit in hits if hit.finding is not None}
    notes = [
        f"The acceptance of {_rules(hits, entry.fingerprint)} ({entry.fingerprint}) ended on {entry.expires}, so it "
        f"counts again. It was accepted because: {entry.reason}"
        for entry in active.values()
        if entry.fingerprint in present and not entry.holds(today)
    ]
    accepted = {
        hit.finding.fingerprint for hit in marked if hit.finding is not None and hit.finding.suppression is not None
    }
    if accepted:
        plural = "findings are" if len(accepted) > 1 else "finding is"
        notes.append(f"{len(accepted)} {plural} accepted by the baseline and did not count; the score includes them.")
    unused = [fingerprint for fingerprint in active if fingerprint not in present]
    if unused:
        more = f" and {len(unused) - NAMED:,} more" if len(unused) > NAMED else ""
        notes.append(f"Entries of the baseline that match no finding: {', '.join(unused[:NAMED])}{more}.")
    return Suppressed(hits=marked, notes=tuple(notes))


def _marked(hit: Hit, active: dict[str, Entry], today: date) -> Hit:
    if hit.finding is None:
        return hit
    entry = active.get(hit.finding.fingerprint)
    if entry is None or not entry.holds(today):
        return hit
    accepted = Suppression(reason=entry.reason, expires=entry.expires.isoformat())
    return replace(hit, finding=replace(hit.finding, suppression=accepted))


def _rules(hits: Iterable[Hit], fingerprint: str) -> str:
    return next(hit.rule_id for hit in hits if hit.finding is not None and hit.finding.fingerprint == fingerprint)
