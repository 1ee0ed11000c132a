"""What a worker of a fleet does: scan one repository, and put everything that is asked of it later into one answer.

Runs in worker processes only; nothing here knows of the ledger. ``prepare`` is called once per process, what it
returns once per job, on several threads at a time.
"""

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from audit.suppressions import Entry
from audit.thresholds import Profile, load_profile
from pipelines.audit_repo import Audited, audit_repo
from pipelines.budget import BorrowedBudget, BudgetAddress
from pipelines.engines.seam import Answer, Failed, Noted, ScanJob, Scanned, Unchanged, Work
from reports.json_v1 import dump
from scanner.base_cache import BaseCache
from scanner.errors import HubAuditError, HubRateLimited, RepoUnavailable
from scanner.refs import RepoSpec
from scanner.shared_hub import SharedHub

PASSING = frozenset({"HubUnreachable", "HubRateLimited"})
"""Errors that may pass when one tries again later."""
MAX_FINDINGS = 200
"""Findings noted beside the report, the worst first; the report has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSetup:
    """What every job of a run has in common. Travels to the workers, and only there: it holds the token.

    ``created_at`` is the time stamp of all reports of the run (Unix time), so that who made a report and when it was
    this one's turn leaves no trace in it; ``salt`` is the run's secret for drawing sampled rows, so that a repetition
    draws the same. ``run`` names the run for the shared cache. ``base`` overrides what cards
    declare. ``accepted`` are findings that do not count (``audit.suppressions``).
    """

    endpoint: str
    token: str | None
    timeout_seconds: float
    patience_seconds: float
    created_at: float
    run: str
    salt: int = 0
    base: str | None = None
    cache_folder: Path | None = None
    cache_bytes: int = 0
    budget: BudgetAddress | None = None
    accepted: tuple[Entry, ...] = ()

    def __repr__(self) -> str:
        return f"FleetSetup(endpoint={self.endpoint!r}, run={self.run!r})"


def rules_digest(accepted: Sequence[Entry] = (), *, today: date | None = None) -> str:
    """Return the SHA-256 of everything that judges: the ids of all rules and the bytes of all threshold profiles.

    With ``accepted`` findings, these as well, and which of them hold on the day ``today``: once one has expired, or the
    list has changed, no verdict on record may stay.
    """
    from audit.rulebook import all_rules

    judged = sha256("\n".join(sorted(rule.id for rule in all_rules())).encode())
    profiles = sorted(files("audit.profiles").iterdir(), key=lambda item: item.name)
    for profile in profiles:
        if profile.name.endswith(".json"):
            judged.update(profile.name.encode() + b"\0" + profile.read_bytes())
    day = today or datetime.now(UTC).date()
    for entry in sorted(accepted, key=lambda one: (one.fingerprint, one.model or "", one.expires)):
        said = (entry.fingerprint, entry.model, entry.reason, entry.expires.isoformat(), entry.holds(day))
        judged.update(json.dumps(said).encode())
    return judged.hexdigest()


def prepare(setup: FleetSetup) -> Work:
    """Make a worker ready: one core for the numerics, one connection to the budget, one cache for all its jobs."""
    # The client library warns on every retry of its own; failures come back as answers.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    budget = BorrowedBudget(setup.budget) if setup.budget else None
    cache = BaseCache(setup.cache_folder, setup.cache_bytes) if setup.cache_folder else None
    created = datetime.fromtimestamp(setup.created_at, UTC)
    profile = load_profile()

    def work(job: ScanJob) -> Answer:
        hub = SharedHub(
            setup.endpoint,
            setup.token,
            subject=job.repo_id,
            cache=cache,
            run=setup.run,
            listed=(job.listed, job.described) if job.listed and not job.wanted else None,
            timeout_seconds=setup.timeout_seconds,
            max_wait_seconds=setup.patience_seconds,
            governor=budget,
        )
        return scan(
            job,
            hub,
            base=setup.base,
            profile=profile,
            clock=lambda: created,
            salt=setup.salt,
            accepted=setup.accepted,
        )

    return work


def scan(
    job: ScanJob,
    hub: SharedHub,
    *,
    base: str | None,
    profile: Profile,
    clock: Callable[[], datetime],
    salt: int,
    accepted: Sequence[Entry] = (),
) -> Answer:
    """Scan one repository, unless everything is at the commits of its last scan. Raises nothing of the Hub's."""
    try:
        head = hub.resolve(RepoSpec(text=job.repo_id, repo_id=job.repo_id, revision=job.wanted or None))
        if job.known and _still(job, str(head.revision), hub):
            return Unchanged(requests=hub.requests)
        model = f"{job.repo_id}@{head.revision}"
        # One core per job: the other cores have jobs of their own.
        audited = audit_repo(
            model, hub=hub, base=base, profile=profile, clock=clock, threads=1, salt=salt, accepted=accepted
        )
    except HubAuditError as error:
        cause = type(error).__name__
        return Failed(reason=str(error), cause=cause, transient=cause in PASSING, requests=hub.requests)
    return answer_of(audited, job, hub)


def _still(job: ScanJob, head: str, hub: SharedHub) -> bool:
    """Whether every head that the last scan looked up is where it was, the subject's first.

    Raises:
        HubUnreachable, HubRateLimited: the Hub cannot be asked.
    """
    if job.known.get(job.repo_id, job.known.get(f"{job.repo_id}@{job.wanted}")) != head:
        return False
    for name, commit in job.known.items():
        repo_id, _, revision = name.partition("@")
        if repo_id == job.repo_id:
            continue
        try:
            found = str(hub.resolve(RepoSpec(text=name, repo_id=repo_id, revision=revision or None)).revision)
        except HubRateLimited:
            raise
        except RepoUnavailable:
            found = ""
        if found != commit:
            return False
    return True


def answer_of(audited: Audited, job: ScanJob, hub: SharedHub) -> Scanned:
    """Return a finished scan as a ledger keeps it."""
    report = audited.report
    raw = dump(report)
    torn = audited.cause in PASSING or (hub.trouble is not None and report.verdict.outcome == "inconclusive")
    return Scanned(
        repo_id=job.repo_id,
        revision=str(report.subject.revision),
        pins=_pins(hub, job, str(report.subject.revision)),
        ending=audited.ending,
        problem=audited.problem,
        outcome=report.verdict.outcome,
        score=report.verdict.score,
        false_positive_rate=report.verdict.false_positive_rate,
        relation=report.lineage.relation,
        status=report.lineage.status,
        base_repo=report.lineage.base.repo_id if report.lineage.base else None,
        base_revision=report.lineage.base.revision if report.lineage.base else None,
        parameters_compared=report.coverage.parameters_compared,
        parameters_total=report.coverage.parameters_total,
        bytes_read=report.coverage.bytes_read,
        requests=hub.requests,
        seconds=report.runtime.seconds,
        created_at=report.created_at,
        digest=measured_digest(raw),
        findings=tuple(
            Noted(rule_id=one.rule_id, severity=one.severity, title=one.title, fingerprint=one.fingerprint)
            for one in report.findings[:MAX_FINDINGS]
        ),
        report=zlib.compress(raw, level=6),
        trouble=(hub.trouble or audited.problem) if torn else None,
    )


def _pins(hub: SharedHub, job: ScanJob, revision: str) -> dict[str, str]:
    """Return the heads that were looked up; the subject's own once, under the name that the job asked for."""
    subject = f"{job.repo_id}@{job.wanted}" if job.wanted else job.repo_id
    others = {name: commit for name, commit in hub.pins.items() if name.partition("@")[0] != job.repo_id}
    return {**others, subject: revision}


def measured_digest(raw: bytes) -> str:
    """Return the SHA-256 of what was measured: the report (JSON) without its time stamp and its cost."""
    report = json.loads(raw)
    report.pop("created_at")
    report.pop("runtime")
    return sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()


def report_of(found: Scanned) -> dict[str, object]:
    """Return the report inside an answer, as plain JSON values."""
    loaded: dict[str, object] = json.loads(zlib.decompress(found.report))
    return loaded
