"""One scan, told once: from what the user typed to a sealed report.

A failure on the way does not throw away what is already known: the report is made of the facts at hand, says
``inconclusive``, and carries the reason; ``Audited.ending`` tells the shell which exit code that means.
"""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from audit.run import audit
from scanner.facts import collect
from scanner.hub import Hub
from scanner.lineage.claims import ClaimSet, collect_claims, walk_chain
from scanner.refs import parse_spec
from scanner.tokens import read_tokens

from audit.evidence import Evidence
from audit.records import AuditReport, RuntimeRecord
from audit.thresholds import Profile, load_profile
from pipelines.progress import Progress, Quiet
from pipelines.settings import tool_version
from scanner.errors import CouldNotConclude, HubAuditError, NothingToCompare
from scanner.records import DriftFacts, Lineage, RepoFacts, RepoRef, Skip, TokenTable

Ending = Literal["concluded", "nothing_to_compare", "could_not_conclude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The report, how the scan ended, and the sentence that says why when it did not conclude."""

    report: AuditReport
    ending: Ending
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighed:
    """What reading the two weight sets gave."""

    lineage: Lineage
    drift: DriftFacts | None
    skips: tuple[Skip, ...]


def peak_rss_bytes() -> int:
    """Return the largest resident memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _weigh(
    candidate: RepoFacts,
    base: RepoFacts,
    claims: ClaimSet,
    chain: tuple[str, ...],
    hub: Hub,
    progress: Progress,
) -> _Weighed:
    """Open both weight sets, check the descent, and measure the drift.

    Raises:
        HubAuditError: a side has no weights, or its table cannot be read.
    """
    from scanner.alignment import align
    from scanner.drift.measure import measure
    from scanner.lineage.descent import check_descent
    from scanner.weights.opening import open_source

    with ExitStack() as stack:
        progress.stage("reading tensor tables")
        candidate_source = stack.enter_context(open_source(candidate, hub))
        base_source = stack.enter_context(open_source(base, hub))
        alignment = align(
            candidate_source.table,
            base_source.table,
            candidate_config=candidate.config,
            base_config=base.config,
        )
        progress.stage("checking the declared base")
        status, relation, checks = check_descent(alignment, base_source, candidate_source)
        lineage = Lineage(
            candidate=candidate.ref,
            base=base.ref,
            relation=relation,
            status=status,
            claims=claims.claims,
            checks=checks,
            conflicts=claims.conflicts,
            chain=chain,
        )
        progress.stage("comparing weights")
        drift = measure(alignment, base_source, candidate_source, progress=progress.advance)
        skips = (*candidate_source.skips, *base_source.skips)
    return _Weighed(lineage=lineage, drift=drift, skips=skips)


def audit_repo(
    model: str,
    *,
    hub: Hub,
    base: str | None = None,
    profile: Profile | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Audited:
    """Scan a model against its base and return the sealed report.

    Args:
        model: what the user typed: ``org/name``, ``org/name@revision``, a Hub URL or a folder.
        hub: the reader of the Hub.
        base: the base to compare with, instead of the declared one.
        profile: thresholds; the default profile when None.
        progress: hears the stages; silence when None.
        clock: gives the report's time stamp.

    Raises:
        BadReference: ``model`` or ``base`` is not a reference.
        CouldNotConclude: the model itself cannot be read, so there is nothing to report on.
    """
    started = time.monotonic()
    progress = progress or Quiet()
    progress.stage("reading the repository")
    facts = collect(hub.resolve(parse_spec(model)), hub)
    claims = collect_claims(facts)
    base_name = base or (claims.bases[0] if claims.bases else None)
    base_facts: RepoFacts | None = None
    chain: tuple[str, ...] = ()
    weighed: _Weighed | None = None
    ending: Ending = "concluded"
    problem: str | None = None
    try:
        if base_name is None:
            raise NothingToCompare(
                f"{facts.ref.name} declares no base model; name one with --base to compare the weights."
            )
        progress.stage("reading the base's repository")
        base_facts = collect(hub.resolve(parse_spec(base_name)), hub)
        chain = walk_chain(base_facts, hub)
        weighed = _weigh(facts, base_facts, claims, chain, hub, progress)
    except NothingToCompare as error:
        ending, problem = "nothing_to_compare", str(error)
    except HubAuditError as error:
        ending, problem = "could_not_conclude", str(error)

    progress.stage("judging")
    lineage = weighed.lineage if weighed else _unweighed(facts.ref, base_facts, claims, chain)
    skips = weighed.skips if weighed else ()
    tokens: TokenTable | None = None
    try:
        tokens = read_tokens(facts, hub)
    except CouldNotConclude as error:
        skips = (*skips, Skip(what="tokenizer", why=str(error)))
    if problem:
        skips = (*skips, Skip(what="weights", why=problem))
    evidence = Evidence(
        candidate=facts,
        base=base_facts,
        lineage=lineage,
        drift=weighed.drift if weighed else None,
        tokens=tokens,
        profile=profile or load_profile(),
    )
    report = audit(
        evidence,
        created_at=clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool_version=tool_version(),
        runtime=RuntimeRecord(
            seconds=round(time.monotonic() - started, 3),
            peak_rss_bytes=peak_rss_bytes(),
            requests=hub.requests,
        ),
        skips=(*facts.skips, *skips),
    )
    return Audited(report=report, ending=ending, problem=problem)


def _unweighed(candidate: RepoRef, base: RepoFacts | None, claims: ClaimSet, chain: tuple[str, ...]) -> Lineage:
    """Return the lineage when no weights were compared: claimed, not verified."""
    return Lineage(
        candidate=candidate,
        base=base.ref if base else None,
        relation="unknown",
        status="unverified",
        claims=claims.claims,
        conflicts=claims.conflicts,
        chain=chain,
    )
