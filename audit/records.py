"""The results of an audit: findings, verdict, and the report that every renderer reads.

These are the types of the wire format v1 (``reports.json_v1`` freezes them). Collections are tuples, every number is
finite or None, and nothing here holds a tensor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from audit.curvature_fields import CurvatureRecord
from scanner.records import Rows

Severity = Literal["info", "low", "medium", "high", "critical"]
Confidence = Literal["low", "medium", "high", "exact"]
Outcome = Literal["pass", "review", "fail", "inconclusive"]
ClaimStatus = Literal["supported", "contradicted", "not_checkable"]

SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")

SCHEMA_V1 = "https://github.com/hubaudit/hubaudit/schemas/audit-report/v1"
"""What ``AuditReport.schema`` says; readers look at the ending alone, and v2 would be another type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number behind a finding: its unit, and the threshold it was held against.

    ``comparison`` reads "value comparison threshold", for example ``>``; both are None for context figures.
    """

    name: str
    value: float | None
    unit: str = ""
    threshold: float | None = None
    comparison: Literal[">", ">=", "<", "<=", "==", "!="] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A vocabulary entry: its id and its text as the vocabulary writes it."""

    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a finding lies. ``rows`` and ``columns`` are half-open intervals; ``file`` is a path in the repository."""

    file: str
    tensor: str | None = None
    rows: tuple[Rows, ...] = ()
    columns: tuple[Rows, ...] = ()
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Why a finding was accepted, and the last day (ISO 8601, UTC, included) on which that holds."""

    reason: str
    expires: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing worth a person's attention.

    Severity says how bad it would be, confidence how sure we are; they are never mixed. At least one location (the
    first is the primary one) and one measurement. ``fingerprint`` is stable across revisions and numbers. With a
    ``suppression`` the finding was accepted by whoever ran the audit, and does not count for the outcome.
    """

    rule_id: str
    severity: Severity
    confidence: Confidence
    title: str
    explanation: str
    remedy: str
    fingerprint: str
    locations: tuple[Location, ...]
    measurements: tuple[Measurement, ...]
    suppression: Suppression | None = None

    def __post_init__(self) -> None:
        if not self.locations or not self.measurements:
            raise ValueError("a finding needs a location and a measurement")


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipRecord:
    """What was not looked at, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file of the subject and the SHA-256 (hex) that the Hub declares for it; hubaudit did not compute it."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was audited. One of ``repo_id`` and ``path`` is set; ``kind`` is model, adapter or quantized.

    ``files`` are those with a declared hash (large files on the Hub, none of a folder), by path, 2,000 at most.
    """

    repo_id: str | None
    path: str | None
    revision: str | None
    kind: Literal["model", "adapter", "quantized"] = "model"
    files: tuple[FileRecord, ...] = ()

    @property
    def name(self) -> str:
        """The repository id, or the folder."""
        return self.repo_id or self.path or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    """The base the subject was compared with."""

    repo_id: str | None
    path: str | None
    revision: str | None

    @property
    def name(self) -> str:
        """The repository id, or the folder."""
        return self.repo_id or self.path or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """One declaration of a base: where it stands, and what it says."""

    source: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRecord:
    """One lineage check and its numbers."""

    name: str
    outcome: Literal["passed", "failed", "not_run"]
    measurements: tuple[Measurement, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageRecord:
    """Who the parent is, how sure, and on what grounds."""

    base: BaseRecord | None
    relation: str
    status: Literal["verified", "contradicted", "unverified"]
    claims: tuple[ClaimRecord, ...] = ()
    checks: tuple[CheckRecord, ...] = ()
    runner_up: str | None = None
    conflicts: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRecord:
    """What was compared, in parameters of the candidate, and what was read, in bytes of both sides."""

    parameters_compared: int
    parameters_total: int
    bytes_read: int
    bytes_total: int
    skipped: tuple[SkipRecord, ...] = ()

    @property
    def fraction(self) -> float:
        """Compared share of the candidate's parameters, in [0, 1]."""
        return self.parameters_compared / self.parameters_total if self.parameters_total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer. ``score`` is in [0, 1] and grows with suspicion.

    ``false_positive_rate`` is the measured share of clean fine-tunes with a score at least this high (None when
    there is no calibration for this kind of model); ``calibration`` says in one line what it was measured on, with
    n and the 95 % upper bound. ``reasons`` are fingerprints of the findings that decided.
    """

    outcome: Outcome
    score: float
    false_positive_rate: float | None
    reasons: tuple[str, ...] = ()
    policy: str = ""
    calibration: str = ""
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        raise TypeError("a verdict has no truth value; compare its outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardClaim:
    """One checkable statement of the card against what was observed."""

    claim: str
    declared: str
    observed: str
    status: ClaimStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class TopRow:
    """A row that moved far. ``relative`` is its drift over the tensor's median row drift (of the rows that moved)."""

    row: int
    relative: float
    z: float | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts per bin; ``edges`` has one more entry than ``counts``, bins include their left edge."""

    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRecord:
    """The drift of one tensor as reports show it.

    Norms are in weight units; ``residual_max`` and ``residual_mean_square`` are the separable-null statistics;
    ``singular_values`` are those of the delta, largest first; ``row_histogram`` counts rows by log10 of their drift.
    """

    tensor: str
    role: str
    layer: int | None
    shape: tuple[int, ...]
    base_dtype: str
    candidate_dtype: str
    relative_l2: float
    delta_l2: float
    base_l2: float
    cosine: float | None
    changed_fraction: float
    nonfinite: int = 0
    rounding_floor: float = 0.0
    residual_max: float | None = None
    residual_mean_square: float | None = None
    top_share: float | None = None
    singular_values: tuple[float, ...] = ()
    top_rows: tuple[TopRow, ...] = ()
    row_histogram: Histogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRecord:
    """The program that made the report."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRecord:
    """What the audit cost: wall seconds, peak resident memory of the process in bytes, HTTP requests."""

    seconds: float
    peak_rss_bytes: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRecord:
    """With what probability a sample of the weights shows an edit of this kind and size, in [0, 1].

    The probability is over the random choice of rows and over places of the edit, all equally likely.
    """

    edit: str
    size: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageRecord:
    """How a scan with a budget chose what to read; sizes in bytes of both sides together.

    ``checked_bytes`` went into the check of the base, ``planned_bytes`` into the sample, ``escalated_bytes`` into
    tensors whose sample was unusual: ``escalated``, of which ``curtailed`` did not fit whole into
    ``escalation_bytes``. ``identical_tensors`` were not read since both hashes of their files agree with the base's;
    of ``claimed_tensors`` only one hash says so, and they were sampled like the rest.
    """

    budget_bytes: int
    escalation_bytes: int
    checked_bytes: int
    planned_bytes: int
    escalated_bytes: int = 0
    escalated: tuple[str, ...] = ()
    curtailed: tuple[str, ...] = ()
    identical_tensors: int = 0
    claimed_tensors: int = 0
    power: tuple[PowerRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedInsertion:
    """A token or phrase that was put into made-up texts: ``flipped`` of ``carriers`` texts of ``words`` words flipped.

    ``margin`` is the target class's median margin afterwards, in logits; ``kinship`` the percentile, in [0, 1], of how
    near the tokens lie to the words of the target class.
    """

    tokens: tuple[Token, ...]
    text: str
    words: int
    flipped: int
    carriers: int
    margin: float
    kinship: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedDirection:
    """What came nearest to turning texts of one class into another, and how often control words did."""

    source: str
    target: str
    insertions: tuple[ProbedInsertion, ...] = ()
    control_words: int = 0
    control_flipped: int = 0
    control_tried: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedShift:
    """What an insertion did to ``texts`` neutral texts of a model without classes; measured and not judged.

    Of a causal model: ``moved`` is the median Jensen-Shannon divergence of the next-token distribution (bits, in
    [0, 1]); ``continuation`` the next token that gains most, with a mean probability of ``together``, ``before``
    without the insertion; after ``led`` texts it is the most probable one and was not without. Of an encoder: ``moved``
    is the median cosine distance of the embedding (in [0, 2]), ``together`` the mean cosine between different texts
    with the insertion, ``before`` without.
    """

    tokens: tuple[Token, ...]
    text: str
    texts: int
    moved: float
    together: float
    before: float
    continuation: Token | None = None
    led: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedControls:
    """The most that any of ``words`` control words did, each measure by itself."""

    words: int
    moved: float
    together: float
    led: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeUntried:
    """What the budget of tokens left out of a probe.

    ``what``: entries of the vocabulary (``count`` of them); or, towards the class ``target``, single tokens, phrases,
    the crowds and rivals that would settle what was found, or control words.
    """

    what: Literal["vocabulary", "tokens", "phrases", "crowds", "controls"]
    target: str | None = None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecord:
    """What the model did when it was run on made-up texts.

    ``scanned`` entries of the vocabulary were tried one by one, ``tried`` insertions in all, on ``texts`` texts of
    ``tokens`` tokens; ``budget`` is the most tokens that might have been run (0: no bound) and ``untried`` what that
    left out. ``left_out`` names classes towards which nothing was tried. Models without classes have ``shifts`` instead
    of ``directions``, and ``controls`` to hold them against.
    """

    kind: Literal["classifier", "causal", "encoder"]
    scanned: int
    tried: int
    texts: int
    seconds: float
    directions: tuple[ProbedDirection, ...] = ()
    left_out: tuple[str, ...] = ()
    shifts: tuple[ProbedShift, ...] = ()
    controls: ProbedControls | None = None
    tokens: int = 0
    budget: int = 0
    untried: tuple[ProbeUntried, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PurifiedState:
    """What a scan and an evaluation said of a model before or after its purification.

    ``accuracy`` and ``attack_success`` are shares in [0, 1] of held-out samples, None where there was no data.
    """

    outcome: Outcome
    score: float
    accuracy: float | None = None
    attack_success: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PurificationRecord:
    """How a model was purified, and what that changed; ``words`` are the gate's own sentences."""

    method: str
    chosen: str
    before: PurifiedState
    after: PurifiedState
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """One finished audit. Findings are sorted by severity, then rule, then fingerprint."""

    schema: str
    tool: ToolRecord
    created_at: str
    subject: Subject
    lineage: LineageRecord
    coverage: CoverageRecord
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    card: tuple[CardClaim, ...] = ()
    drift: tuple[DriftRecord, ...] = ()
    runtime: RuntimeRecord = field(default_factory=lambda: RuntimeRecord(seconds=0.0, peak_rss_bytes=0, requests=0))
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Id, digest and source of the threshold profile that judged."""
    probe: ProbeRecord | None = None
    """What the model did when it was run; None when it was not."""
    triage: TriageRecord | None = None
    """What a budget left out, and how likely an edit would have shown; None when everything was to be read."""
    purification: PurificationRecord | None = None
    """Set when the report is shown beside the log of a purification; a scan leaves it None."""
    curvature: CurvatureRecord | None = None
    """What given clean examples say about how the model moved; None when none were given or could be used."""
