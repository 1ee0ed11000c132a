"""One scan, told once: from what the user typed to a sealed report.

A failure on the way does not throw away what is already known: the report is made of the facts at hand, says
``inconclusive``, and carries the reason; ``Audited.ending`` tells the shell which exit code that means.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from audit.evidence import Evidence
from audit.records import AuditReport, RuntimeRecord
from audit.run import audit
from audit.suppressions import Entry
from audit.thresholds import Profile, load_profile
from pipelines.progress import Progress, Quiet
from pipelines.settings import tool_version
from scanner.card_context import Ancestor, CardContext, Stored
from scanner.errors import CouldNotConclude, HubAuditError, NothingToCompare
from scanner.eval_results import read_results
from scanner.facts import collect
from scanner.hub import Hub
from scanner.lineage.claims import ClaimSet, collect_claims, other_parents, walk
from scanner.records import DriftFacts, Lineage, RepoFacts, RepoRef, Skip, TokenTable
from scanner.refs import RepoSpec, parse_spec
from scanner.side.reading import Remembered, TextReader
from scanner.tokens import read_pair_tokens

if TYPE_CHECKING:
    from pipelines.purify.data import DataSpec

Ending = Literal["concluded", "nothing_to_compare", "could_not_conclude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The report, how the scan ended, and the sentence that says why when it did not conclude.

    ``cause`` is then the name of the error (of ``scanner.errors``): some of them pass when one tries again later.
    """

    report: AuditReport
    ending: Ending
    problem: str | None = None
    cause: str | None = None


def peak_rss_bytes() -> int:
    """Return the largest resident memory this process has had, in bytes.

    Linux says it of the running program; ``getrusage`` there also remembers the program that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def audit_repo(
    model: str,
    *,
    hub: Hub,
    base: str | None = None,
    profile: Profile | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    threads: int | None = None,
    salt: int | None = None,
    accepted: Sequence[Entry] = (),
    probe: bool | None = False,
    budget_bytes: int | None = None,
    resume_folder: Path | None = None,
    data: "DataSpec | None" = None,
) -> Audited:
    """Scan a model against its base and return the sealed report.

    Args:
        model: what the user typed: ``org/name``, ``org/name@revision``, a Hub URL or a folder.
        hub: the reader of the Hub.
        base: the base to compare with, instead of the declared one.
        profile: thresholds; the default profile when None.
        progress: hears the stages; silence when None.
        clock: gives the report's time stamp.
        threads: cores for the numerics; all usable ones when None.
        salt: a secret number from which the sampled rows are drawn; a new one when None.
        accepted: findings that were accepted (``audit.suppressions``); they are marked and do not count.
        probe: run the model (``pipelines.probing``): True asks for it, None does it where it is usual and there is no
            budget.
        budget_bytes: weights to read from both sides together; all of them when None.
        resume_folder: where a scan of Hub repositories keeps what it has measured until it ends, and looks for what an
            interrupted one has left; nothing is kept when None, or when there is a budget.
        data: clean examples to run the model on (``pipelines.data_mode``); both sides are then read whole once more.

    Raises:
        BadReference: ``model`` or ``base`` is not a reference.
        CouldNotConclude: the model itself cannot be read, so there is nothing to report on.
    """
    started = time.monotonic()
    from pipelines.parentage import second_opinion
    from pipelines.probing import Probed, probe_candidate
    from pipelines.resume import Resume
    from pipelines.triage import REVISION_SHARE, RIVALS_SHARE, and_beside
    from pipelines.weighing import Manner, Within, weigh
    from scanner.lineage.revision import nearest_revision
    from scanner.lineage.sampling import new_salt, sampling_seed
    from scanner.pickles import inspect_pickles
    from scanner.side.gather import look_around
    from scanner.side.licence_files import read_licence_files

    progress = progress or Quiet()
    progress.stage("reading the repository")
    wanted_base = parse_spec(base, endpoint=hub.endpoint) if base is not None else None
    facts = collect(hub.resolve(parse_spec(model, endpoint=hub.endpoint)), hub)
    claims = collect_claims(facts)
    skips = [*facts.skips, *(Skip(what="declared base", why=note) for note in claims.notes)]
    lineage = Lineage(
        candidate=facts.ref,
        base=None,
        relation="unknown",
        status="unverified",
        claims=claims.claims,
        conflicts=claims.conflicts,
    )
    base_facts: RepoFacts | None = None
    drift: DriftFacts | None = None
    noted: list[Stored] = []
    ancestors: tuple[Ancestor, ...] = ()
    reader = Remembered(hub)
    tokens: TokenTable | None = None
    resume: Resume | None = None
    ending: Ending = "concluded"
    problem: str | None = None
    cause: str | None = None
    beside = 0
    try:
        progress.stage("reading the base's repository")
        wanted_base = wanted_base or _declared(facts, claims)
        named = RepoRef(repo_id=wanted_base.repo_id, path=wanted_base.path, revision=wanted_base.revision)
        lineage = replace(lineage, base=named)  # a base that cannot be read is declared all the same
        base_facts = collect(hub.resolve(wanted_base), hub)
        family = walk(base_facts, hub)
        ancestors = (*family.ancestors, *(other_parents(claims.bases, hub) if base is None else ()))
        skips += [Skip(what="family", why=family.note)] if family.note else []
        salt = new_salt() if salt is None else salt
        if resume_folder is not None and budget_bytes is None and facts.ref.repo_id and base_facts.ref.repo_id:
            resume = Resume(resume_folder, facts.ref, base_facts.ref)
            salt = resume.salt(salt)
        if wanted_base.revision is None and base_facts.ref.repo_id is not None:
            progress.stage("looking for the revision of the base")
            seed = sampling_seed(base_facts.ref, facts.ref, salt)
            most = None if budget_bytes is None else int(REVISION_SHARE * budget_bytes)
            revision = nearest_revision(base_facts, facts, hub, seed=seed, most_bytes=most)
            base_facts, lineage = revision.facts, replace(lineage, checks=(revision.check,))
            beside = revision.bytes_read
        lineage = replace(lineage, base=base_facts.ref, chain=family.models)
        seed = sampling_seed(base_facts.ref, facts.ref, salt)
        within = None
        others = (*claims.bases[1:], *family.models[1:2])
        kept = int(RIVALS_SHARE * budget_bytes) if budget_bytes is not None and others else 0
        if budget_bytes is not None:
            tokens = _tokens(facts, base_facts, reader, skips)
            within = Within(
                bytes=budget_bytes,
                spent=beside,
                kept=kept,
                unusual=partial(_unusual, facts, base_facts, tokens, profile or load_profile()),
            )
        lineage, drift = weigh(
            facts,
            base_facts,
            lineage,
            claims.relation,
            hub,
            noted,
            Manner(progress=progress, threads=threads, seed=seed, within=within, resume=resume),
        )
        progress.stage("looking at other parents")
        is_put_on = any(check.name == "adapter_fit" for check in lineage.checks)  # factors resemble no model
        opinion = second_opinion(
            facts,
            base_facts,
            () if is_put_on else others,
            hub,
            seed=seed,
            most_bytes=None if budget_bytes is None else kept,
        )
        drift = and_beside(drift, revision=beside, rivals=opinion.bytes_read)
        skips += opinion.skips
        lineage = replace(lineage, runner_up=opinion.runner_up, checks=(*lineage.checks, *opinion.checks))
    except NothingToCompare as error:
        ending, problem, cause = "nothing_to_compare", str(error), type(error).__name__
    except HubAuditError as error:
        ending, problem, cause = "could_not_conclude", str(error), type(error).__name__
    skips += [Skip(what="weights", why=problem)] if problem else []
    if resume is not None and resume.unreadable:
        skips.append(Skip(what=f"{resume.unreadable} kept results", why="unreadable, so they were measured again"))

    progress.stage("judging")
    tokens = tokens or _tokens(facts, base_facts, reader, skips)
    side = look_around(
        facts,
        base_facts if lineage.status != "contradicted" else None,
        hub,
        reader=reader,
        declared=claims.bases[0] if base is None and claims.bases else None,
    )
    skips += side.skips
    probed = Probed()
    # A refuted base is the answer already: fetching the model to run it would say nothing more about the declaration.
    usual = drift is not None and budget_bytes is None and lineage.status != "contradicted"
    if probe or (probe is None and usual):
        probed = probe_candidate(
            facts, hub, drift=drift, tokens=tokens, asked=bool(probe), progress=progress, threads=threads,
            base=base_facts,
        )  # fmt: skip
        skips += [probed.skip] if probed.skip else []
        progress.stage("judging")
    weighed = None
    if data is not None:
        from pipelines.data_mode import weigh_data

        weighed = weigh_data(data, facts, base_facts, hub, lineage=lineage, drift=drift, progress=progress)
        skips += weighed.skips
        progress.stage("judging")
    licence_files = read_licence_files(facts, reader, skips)
    pickles, uninspected = inspect_pickles(facts, hub)
    skips += uninspected
    scores, unscored = read_results(facts, hub)
    skips += unscored
    evidence = Evidence(
        candidate=facts,
        base=base_facts,
        lineage=lineage,
        drift=drift,
        tokens=tokens,
        profile=profile or load_profile(),
        pickles=pickles,
        probe=probed.facts,
        probe_problem=probed.skip.why if probe and probed.skip else None,
        curvature=weighed.facts if weighed else None,
        data_problem=weighed.problem if weighed else None,
        side=side,
        card_context=CardContext(
            stored=noted[0] if noted else None, scores=scores, ancestors=ancestors, licence_files=licence_files
        ),
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
        skips=skips,
        accepted=accepted,
    )
    if resume is not None:
        resume.end(complete=ending == "concluded" and not _unread(drift))
    return Audited(report=report, ending=ending, problem=problem, cause=cause)


def _unusual(
    candidate: RepoFacts,
    base: RepoFacts,
    tokens: TokenTable | None,
    profile: Profile,
    lineage: Lineage,
    drift: DriftFacts,
) -> Sequence[str]:
    """Ask the detectors which sampled tensors come near a threshold."""
    from audit.escalation import unusual_tensors

    return unusual_tensors(
        Evidence(candidate=candidate, base=base, lineage=lineage, drift=drift, tokens=tokens, profile=profile)
    )


def _tokens(facts: RepoFacts, base_facts: RepoFacts | None, reader: TextReader, skips: list[Skip]) -> TokenTable | None:
    try:
        return read_pair_tokens(facts, base_facts, reader)
    except CouldNotConclude as error:
        skips.append(Skip(what="tokenizer", why=str(error)))
        return None


def _unread(drift: DriftFacts | None) -> bool:
    """True when a further run could read what this one could not."""
    return drift is not None and any(skip.unread for skip in drift.coverage.skipped)


def _declared(facts: RepoFacts, claims: ClaimSet) -> RepoSpec:
    """Return the base that the repository declares: always one on the Hub, whatever folders lie around here.

    Raises:
        NothingToCompare: it declares none.
    """
    if not claims.bases:
        unread = [skip.why for skip in facts.skips if skip.what == "README.md"]
        reasons = (*unread, *claims.notes)
        why = f" ({reasons[0].rstrip('.')})" if reasons else ""
        raise NothingToCompare(
            f"{facts.ref.name} declares no base model{why}; name one with --base to compare the weights."
        )
    return RepoSpec(text=claims.bases[0], repo_id=claims.bases[0])
