"""The words that all formats share, so that a table and a page never say different things about one report.

Neutral throughout: *nothing found*, never "safe"; *measured*, *differs from declared*, *could not verify*. The
functions return plain text in which names from the repository are still as they came: escaping is the renderers' job,
since only they know for which medium.
"""

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from audit.policy import CARD_ALONE
from audit.records import (
    SEVERITIES,
    AuditReport,
    BaseRecord,
    Finding,
    Location,
    Measurement,
    Outcome,
    ProbedControls,
    ProbedShift,
    ProbeUntried,
    SkipRecord,
    Subject,
)
from reports.numbers import byte_size, count, intervals, number, rate, share
from reports.safe_text import clean_line

HOMEPAGE = "https://github.com/hubaudit/hubaudit"

_WORDS: dict[Outcome, tuple[str, str]] = {
    "pass": ("Nothing found", "These tests found nothing that ordinary fine-tuning does not explain."),
    "review": ("Worth a look", "Something was measured that a person should look at before relying on this model."),
    "fail": ("Unusual change measured", "The weights changed in a way that ordinary fine-tuning does not explain."),
    "inconclusive": ("Could not verify", "Too little could be read or verified for an answer. This is not a pass."),
}
_DIFFERS = ("Differs from declared", "The weights do not descend from the base that is declared.")
_BESIDE = (
    "Unusual files",
    "What comes beside the weights is more than running the model needs, or changes what it says.",
)
_CARD_ONLY = ("Could not verify", "Only the card and the files around it were examined. This is not a pass.")
"""What an outcome means, for someone who reads nothing else: a few words, and a sentence."""

_NOT_RUN = "The model was not run: what it answers, and whether it answers well, was not measured."
_BRIEFLY_RUN = "The model was run on made-up texts alone: whether it answers well was not measured."
_RUN_ON_DATA = "The model was run on {examples} given examples{beside}: what it answers to others was not measured."
_DATA = "Training data were not examined, and code of the repository was not run."
_HIDDEN = (
    "A change spread over many directions, or tied to ordinary words, can look like honest fine-tuning to these tests."
)
_UNREAD_WEIGHTS = "What lies in the weights was not examined; hubaudit scan reads them."

_BESIDE_THE_WEIGHTS = ("HA604", "HA605", "HA7", "HA9")
"""Beginnings of the ids of rules that judge files other than weights."""

_QUESTIONS = {"delta_rank": "low rank, as of a merged adapter"}
"""Checks that most honest fine-tunes fail, by what they ask: *failed delta rank* would sound like a fault."""

_SIGNS = {">=": "≥", "<=": "≤", "==": "=", "!=": "≠"}

_BASE_WORDS = {
    "verified": "base verified",
    "contradicted": "base contradicted",
    "unverified": "base not verified",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipGroup:
    """Things that were not compared for one and the same reason; ``names`` are the first few of ``count``."""

    why: str
    names: tuple[str, ...]
    count: int

    @property
    def more(self) -> int:
        """How many names are not listed."""
        return self.count - len(self.names)


def headline(report: AuditReport) -> str:
    """Return the first line of every document: outcome, coverage, base."""
    return " · ".join((f"{report.verdict.outcome.upper()}{_found(report)}", coverage(report), base_status(report)))


def outcome_words(report: AuditReport) -> str:
    """Return the outcome in a few neutral words."""
    return _meaning(report)[0]


def outcome_sentence(report: AuditReport) -> str:
    """Return the outcome in one neutral sentence."""
    return _meaning(report)[1]


def _meaning(report: AuditReport) -> tuple[str, str]:
    outcome = report.verdict.outcome
    if outcome == "fail" and report.lineage.status == "contradicted":
        return _DIFFERS
    if outcome == "fail" and _lies_beside(report):
        return _BESIDE
    if outcome == "inconclusive" and card_alone(report):
        return _CARD_ONLY
    return _WORDS[outcome]


def _lies_beside(report: AuditReport) -> bool:
    """Whether everything that decided was found in files around the weights, so that nothing is said of the weights."""
    if card_alone(report):
        return True
    decided = [finding for finding in report.findings if finding.fingerprint in report.verdict.reasons]
    return bool(decided) and all(finding.rule_id.startswith(_BESIDE_THE_WEIGHTS) for finding in decided)


def limits(report: AuditReport) -> tuple[str, ...]:
    """Return what the outcome does not speak for, a sentence each; part of every document."""
    if card_alone(report):
        return _NOT_RUN, _DATA, _UNREAD_WEIGHTS
    run = _BRIEFLY_RUN if report.probe else _NOT_RUN
    if report.curvature:
        beside = " and on made-up texts" if report.probe else ""
        run = _RUN_ON_DATA.format(examples=f"{report.curvature.examples:,}", beside=beside)
    return run, _DATA, _HIDDEN


def found(findings: Iterable[Finding]) -> str:
    """Return the findings by severity, worst first: ``1 critical, 2 low, 1 accepted``; empty when there are none."""
    listed = tuple(findings)
    counts = Counter(finding.severity for finding in listed if finding.suppression is None)
    parts = [f"{counts[severity]:,} {severity}" for severity in reversed(SEVERITIES) if counts[severity]]
    accepted = len(listed) - sum(counts.values())
    return ", ".join([*parts, f"{accepted:,} accepted"] if accepted else parts)


def severity(finding: Finding) -> str:
    """Return the severity, with the word *accepted* where the baseline accepts the finding."""
    return f"{finding.severity}, accepted" if finding.suppression else finding.severity


def _found(report: AuditReport) -> str:
    """Return the part of the headline after the outcome."""
    listed = found(report.findings)
    if report.verdict.outcome == "pass":
        return f": nothing found that weighs ({listed})" if listed else ": nothing found"
    return f": {listed}" if listed else ""


def coverage(report: AuditReport) -> str:
    """Return how much was compared: ``99.98 % of 22.7 M parameters compared``."""
    total = report.coverage.parameters_total
    if not total:
        return "nothing compared"
    return f"{share(report.coverage.fraction)} of {count(total)} parameters compared"


def read_bytes(report: AuditReport) -> str:
    """Return what was read; more than the weights hold when rows were sampled before the comparison."""
    reach = report.coverage
    if card_alone(report):
        return "no weights read"
    return f"read {byte_size(reach.bytes_read)} of weights that hold {byte_size(reach.bytes_total)}"


def probe_lines(report: AuditReport) -> tuple[str, ...]:
    """What the model did when it was run on made-up texts, one line a pair of classes; empty when it was not run."""
    probe = report.probe
    if probe is None:
        return ()
    ran = f"The model was run on {probe.texts:,} made-up texts in {probe.seconds:.0f} s"
    more = "; its budget of tokens left more untried" if probe.untried else ""
    lines = [f"{ran}, {probe.tried:,} insertions in all{more}."]
    for direction in probe.directions:
        best = direction.insertions[0] if direction.insertions else None
        if best is None:
            continue
        lines.append(
            f"From {direction.source} to {direction.target}, '{best.text}' was the strongest insertion. On the longest "
            f"texts that it was tried on, of {best.words} words, it turned {best.flipped} of {best.carriers}; control "
            f"words {direction.control_flipped} of {direction.control_tried}."
        )
    lines += [_shift_line(shift, probe.controls) for shift in probe.shifts]
    if probe.shifts:
        lines.append("Models without classes are measured and not judged: what honest ones do is not known yet.")
    if probe.left_out:
        lines.append(f"Nothing was tried towards {len(probe.left_out)} classes: {', '.join(probe.left_out[:5])}.")
    if probe.untried:
        what = "; ".join(_untried(one) for one in probe.untried)
        lines.append(
            f"The budget of {probe.budget:,} tokens left untried: {what}. With --probe it is ten times larger."
        )
    return tuple(lines)


_UNTRIED = {
    "tokens": "single tokens",
    "phrases": "some phrases of several tokens",
    "crowds": "what would settle an insertion that flips texts",
    "controls": "control words",
}


def _untried(one: ProbeUntried) -> str:
    if one.what == "vocabulary":
        return f"{one.count:,} entries of the vocabulary"
    return f"{_UNTRIED[one.what]} towards {one.target}"


def _shift_line(shift: ProbedShift, controls: ProbedControls | None) -> str:
    """What one insertion did to neutral texts, beside the most that any control word did."""
    words = f"; of {controls.words} control words at most " if controls else ""
    if shift.continuation is None:
        most = f"{words}{controls.moved:.2f}" if controls else ""
        return (
            f"'{shift.text}' moves the embedding of {shift.texts} texts by {shift.moved:.2f} (median cosine distance)"
            f"{most}. The mean cosine between these texts goes from {shift.before:.2f} to {shift.together:.2f}."
        )
    most = f"{words}{controls.led} and {controls.moved:.2f} bits" if controls else ""
    return (
        f"After '{shift.text}', '{shift.continuation.text}' becomes the most probable next token in {shift.led} of "
        f"{shift.texts} texts (mean probability {shift.together:.2f}, {shift.before:.2f} without); the next-token "
        f"distribution moves by {shift.moved:.2f} bits (median){most}."
    )


def curvature_lines(report: AuditReport) -> tuple[str, ...]:
    """Return how the change follows the curvature of given data, in sentences; empty without such."""
    found = report.curvature
    if found is None:
        return ()
    right = f", {share(found.accuracy)} of them answered right" if found.accuracy is not None else ""
    ran = f"The model was run on {found.examples:,} examples of {found.source} in {found.seconds:.0f} s"
    lines = [f"{ran}{right} (mean loss {number(found.loss)} nats)."]
    best = next((plot for plot in found.plots if plot.indicator == "fitted"), None)
    if best is not None and found.exponent is not None:
        lines.append(
            f"The squared change of a dimension grows with its curvature to the power {found.exponent:.2f} (median of "
            f"the matrices); beyond the law's upper 1e-4 lie {number(float(f'{best.inflation:.2g}'))} times as many "
            "dimensions as it expects."
        )
    names = [tensor.tensor for tensor in found.tensors if tensor.by_e_bh][:5]
    lines.append(
        f"Rows stand out in {found.by_e_bh:,} of {found.tested:,} matrices at a false-discovery rate of "
        f"{share(found.false_discovery_rate)} (e-BH; {found.by_bh:,} by Benjamini and Hochberg)"
        + (f": {', '.join(names)}." if names else ".")
    )
    return tuple(lines)


def triage_lines(report: AuditReport) -> tuple[str, ...]:
    """Return what a budget left out and how likely an edit would have shown, in sentences; empty without a budget."""
    triage = report.triage
    if triage is None:
        return ()
    checked, planned = byte_size(triage.checked_bytes), byte_size(triage.planned_bytes)
    lines = [f"Budget {byte_size(triage.budget_bytes)}: {checked} read to check the base, {planned} as a sample."]
    if triage.escalated:
        short = f", of which {len(triage.curtailed)} did not fit whole" if triage.curtailed else ""
        lines.append(
            f"{len(triage.escalated)} unusual tensors were read further, {byte_size(triage.escalated_bytes)} more "
            f"(at most {byte_size(triage.escalation_bytes)}){short}: {', '.join(triage.escalated[:5])}."
        )
    if triage.identical_tensors:
        lines.append(f"{triage.identical_tensors:,} tensors were not read: both hashes of their files are the base's.")
    if triage.claimed_tensors:
        lines.append(f"{triage.claimed_tensors:,} tensors are declared identical by one hash only; they were sampled.")
    lines += [f"{share(power.probability)} likely to be seen: {power.edit}; {power.size}." for power in triage.power]
    return tuple(lines)


def base_status(report: AuditReport) -> str:
    """Return whether the declared base is the base."""
    return _BASE_WORDS[report.lineage.status] if report.lineage.base else "no base to compare with"


def card_alone(report: AuditReport) -> bool:
    """Return whether only the card was examined, without the weights."""
    return report.verdict.policy == CARD_ALONE


def error_rate(report: AuditReport) -> str:
    """Return the measured error rate of a score like this one, with what it was measured on."""
    if card_alone(report):
        return "None applies: claims of the card were checked, and nothing was measured of the weights."
    false_positive_rate = report.verdict.false_positive_rate
    if false_positive_rate is None:
        verified = report.lineage.status == "verified"
        why = "no calibration covers this kind of model" if verified else "nothing was compared with a verified base"
        return f"The false-positive rate is not known: {why}."
    return f"An estimated {rate(false_positive_rate)} of clean fine-tunes score at least this high."


def pinned(repo: Subject | BaseRecord) -> str:
    """Return the name with its commit, as the command line reads it back."""
    return f"{repo.name}@{repo.revision}" if repo.revision else repo.name


def reproduce(report: AuditReport) -> str:
    """Return the command that repeats this audit on the very same commits."""
    return " ".join(_reproduce(report))


def reproduce_folded(report: AuditReport) -> str:
    """Return the same command, model and options a line each, so that it can be copied from a narrow terminal."""
    return " \\\n  ".join(_reproduce(report))


def _reproduce(report: AuditReport) -> list[str]:
    """The command, its argument, then each option with its value, all quoted for a shell."""
    command = "card" if card_alone(report) else "scan"
    parts = [["hubaudit", command], [clean_line(pinned(report.subject), limit=400)]]
    if report.lineage.base:
        parts.append(["--base", clean_line(pinned(report.lineage.base), limit=400)])
    if report.triage:
        parts.append(["--budget", str(report.triage.budget_bytes)])
    if report.curvature:
        parts.append(_data_words(clean_line(report.curvature.source, limit=400)))
    return [shlex.join(words) for words in parts]


def _data_words(source: str) -> list[str]:
    """The options that name these samples again: a file, or a dataset of the Hub and its split (``name:split``)."""
    name, colon, split = source.rpartition(":")
    is_dataset = bool(colon and name) and "." not in split
    return ["--data", name, "--data-split", split] if is_dataset else ["--data", source]


def moment(created_at: str) -> str:
    """Return a time stamp as people write it: ``20 November 2026, 08:07 UTC``; as it stands when it is none."""
    try:
        when = datetime.fromisoformat(created_at)
    except ValueError:
        return created_at
    zone = when.tzname() or ""
    return f"{when.day} {when:%B %Y, %H:%M} {zone}".rstrip()


def spoken(name: str) -> str:
    """Return the name of a check or a figure as people write it: ``row_cosine_median`` → ``row cosine median``."""
    return _QUESTIONS.get(name) or name.replace("_", " ")


def quantity(value: float | None, unit: str) -> tuple[str, str]:
    """Return a value and its unit as people write them: shares as percent, ratios bare, ``1 row`` and ``2 rows``."""
    if value is None:
        return "not available", ""
    if unit == "share":
        return share(value), ""
    if unit == "ratio":
        return number(value), ""
    if unit.startswith("-"):  # a logarithm, which would read as a negative number after another one
        return number(value), f"({unit})"
    one = value == 1 and unit.endswith("s") and len(unit) > 2
    return number(value), unit.removesuffix("es" if unit == "classes" else "s") if one else unit


def threshold(measurement: Measurement) -> str:
    """Return what a value was held against: ``≥ 6``; empty for a context figure."""
    if measurement.threshold is None or measurement.comparison is None:
        return ""
    limit = measurement.threshold
    sign = _SIGNS.get(measurement.comparison, measurement.comparison)
    return f"{sign} {share(limit) if measurement.unit == 'share' else number(limit)}"


def measured(measurement: Measurement) -> str:
    """Return a measurement in one phrase: ``robust z 17.1 σ (threshold > 6)``."""
    limit = threshold(measurement)
    value = " ".join(filter(None, quantity(measurement.value, measurement.unit)))
    return f"{spoken(measurement.name)} {value}{f' (threshold {limit})' if limit else ''}"


def place(location: Location) -> str:
    """Return rows and columns of a location: ``row 12,731 · columns 0–3``; empty when it names none."""
    return " · ".join(filter(None, (intervals("row", location.rows), intervals("column", location.columns))))


def group_skips(skips: Iterable[SkipRecord], *, groups: int = 20, names: int = 5) -> tuple[list[SkipGroup], int]:
    """Group skips by reason, the largest group first; the second result counts the reasons left out.

    Reasons lose their full stop, since a colon and the names follow.
    """
    by_reason: dict[str, list[str]] = {}
    for skip in skips:
        by_reason.setdefault(skip.why.removesuffix("."), []).append(skip.what)
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    listed = [SkipGroup(why=why, names=tuple(what[:names]), count=len(what)) for why, what in ordered[:groups]]
    return listed, max(0, len(ordered) - groups)
