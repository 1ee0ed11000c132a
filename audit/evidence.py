"""Everything a detector may see, and the words in which a rule is declared."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from audit.records import CardClaim, Finding, Severity, SkipRecord
from audit.thresholds import Profile
from scanner.card_context import CardContext
from scanner.curvature.records import CurvatureFacts
from scanner.probe.records import ProbeFacts
from scanner.records import DriftFacts, Lineage, PickleImports, RepoFacts, TokenTable
from scanner.side.records import SideFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The facts of one audit and the profile they are judged by.

    ``drift`` and ``tokens`` are None when the weights or the tokenizer could not be read; ``base`` holds the facts
    of the base's repository when there is one. ``pickles`` lists the files that import more than weights need;
    ``side`` holds what the files around the weights say; ``card_context`` is what the card's claims are held
    against besides.
    """

    candidate: RepoFacts
    base: RepoFacts | None
    lineage: Lineage
    drift: DriftFacts | None
    tokens: TokenTable | None
    profile: Profile
    pickles: tuple[PickleImports, ...] = ()
    probe: ProbeFacts | None = None
    """What the model itself did with insertions; None when it was not run."""
    probe_problem: str | None = None
    """Why a probe that was asked for did not run; it keeps the verdict from being a pass (docs/decisions/0009)."""
    curvature: CurvatureFacts | None = None
    """What clean examples that the user gave say about how the weights moved; None without such."""
    data_problem: str | None = None
    """Why examples that were given could not be used; it keeps the verdict from being a pass."""
    side: SideFacts = field(default_factory=SideFacts)
    card_context: CardContext = field(default_factory=CardContext)
    card_claims: tuple[tuple[CardClaim, ...], tuple[SkipRecord, ...]] | None = None
    """What ``audit.card.checks.claims_of`` said of these facts, for whoever asks again; None before anyone did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a detector declares about one rule.

    ``id`` is stable for ever and names the section in docs/rules.md. ``severity`` is the usual one; a finding may
    lower it. ``weighs`` is false for rules that inform but never move the verdict's score.
    """

    id: str
    title: str
    severity: Severity
    weighs: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What a rule measured: its score in [0, 1], on the scale that the profile calibrates, and the finding if any.

    ``finding`` is None when the value stayed below the rule's threshold: the score then still says how close it
    came. ``value`` is the rule's own statistic, None for exact facts, which have no clean distribution.
    """

    rule_id: str
    score: float
    finding: Finding | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A rule family: its rules, and the function from evidence to hits and abstentions.

    ``needs_drift`` and ``needs_verified_base`` say when the detector cannot run; that is then a recorded skip.
    A detector that raises is a recorded skip as well, and keeps the verdict from being ``pass``. One that cannot
    judge a model of this shape says so with a ``SkipRecord`` whose ``what`` is the id of the rule. ``bears_a_pass`` is
    false for one that sees so little of a model that a pass cannot rest on it alone.
    """

    name: str
    rules: tuple[Rule, ...]
    run: Callable[[Evidence], Iterable[Hit | SkipRecord]]
    needs_drift: bool = True
    needs_verified_base: bool = True
    bears_a_pass: bool = True


def fingerprint(rule_id: str, repo: str, tensor: str | None, discriminator: str = "") -> str:
    """Return 16 hex digits that stay the same between revisions and measurements of the same thing."""
    text = "\x1f".join((rule_id, repo, tensor or "", discriminator))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
