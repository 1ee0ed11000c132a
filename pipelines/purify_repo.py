"""One purification, told once: scan, method, a new folder, and what shows that it worked.

The new folder walks in by the front door like any stranger: it is scanned by ``audit_repo`` and probed before it is
moved to its place. Nothing is published here.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit.records import AuditReport
from pipelines.audit_repo import Audited, audit_repo
from pipelines.evaluate import Evaluation, Trigger, evaluate
from pipelines.progress import Progress, Quiet
from pipelines.purify import kept
from pipelines.purify.catalogue import PURIFIERS, purifier_named
from pipelines.purify.checkpoint import Checkpoint, kind_of, open_checkpoint
from pipelines.purify.data import DataSpec, declared_datasets, load_samples, split_samples
from pipelines.purify.figures import write_qq
from pipelines.purify.job import CleanData, ModelKind, Purifier, PurifyFailed, PurifyJob, PurifyResult, Tuning
from pipelines.purify.proving import Gate, Reprobe, judge, reprobe
from pipelines.purify.snapshots import snapshot
from pipelines.purify.stacked import stacked
from pipelines.purify.writer import LOG_FILE, Written, check_output, unfinished, write_model
from pipelines.settings import load_settings, tool_version
from scanner.errors import BadReference, CouldNotConclude, NothingToCompare
from scanner.hub import Hub
from scanner.paths import shown
from scanner.records import RepoRef
from scanner.refs import parse_spec

SCHEMA = "https://github.com/hubaudit/hubaudit/schemas/purification/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PurifyRequest:
    """What the user asked for. ``triggers`` are also what attacks are evaluated with, when there is data."""

    model: str
    method: str
    output: Path
    base: str | None = None
    report: AuditReport | None = None
    data: DataSpec | None = None
    options: object | None = None
    tuning: Tuning = field(default_factory=Tuning)
    triggers: tuple[Trigger, ...] = ()
    with_e_pur: bool = False
    probe: bool = True
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purified:
    """What came out: the new folder, the reports of both, and what may be claimed."""

    folder: Path
    before: AuditReport
    after: AuditReport
    gate: Gate
    chosen: str
    evaluations: tuple[Evaluation, Evaluation] | None = None


def purify(
    request: PurifyRequest,
    hub: Hub,
    *,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Purified:
    """Purify a model into a new folder and prove what that achieved.

    Raises:
        BadReference: a reference, option or the output cannot be used.
        NothingToCompare: the method needs a base and none is known, or there is nothing to put back.
        CouldNotConclude: the base is refuted, data do not fit, a step failed; nothing is left at ``output``.
    """
    progress = progress or Quiet()
    purifier = purifier_named(request.method)
    candidate_ref = hub.resolve(parse_spec(request.model, endpoint=hub.endpoint))
    check_output(request.output, *([Path(candidate_ref.path)] if candidate_ref.path else []))
    if purifier.needs_data == "required" and request.data is None:
        raise _no_data(purifier, candidate_ref, hub)
    work = kept.work_folder(request.output)
    before, base_ref = _scanned(request, purifier, candidate_ref, hub, progress)
    work.mkdir(exist_ok=True)
    try:
        return _purify(request, purifier, before, candidate_ref, base_ref, hub, work, progress, clock)
    finally:
        kept.tidy(work)


def _purify(
    request: PurifyRequest,
    purifier: Purifier,
    before: AuditReport,
    candidate_ref: RepoRef,
    base_ref: RepoRef | None,
    hub: Hub,
    work: Path,
    progress: Progress,
    clock: Callable[[], datetime],
) -> Purified:
    """What follows the scan; leaves in ``work`` what another run can use, and nothing after success."""
    job = _job(request, purifier, before, candidate_ref, base_ref, hub, work, progress)
    key = kept.job_key(job, purifier.name, str(candidate_ref), str(base_ref) if base_ref else None, tool_version())
    folder = work / key
    folder.mkdir(exist_ok=True)
    checkpoint = open_checkpoint(job.candidate)
    base_text = str(job.base) if job.base else None

    def rescan(result: PurifyResult) -> AuditReport:
        trial = folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir()
        try:
            write_model(checkpoint, result.edits, trial, Quiet(), with_patch=False)
            return audit_repo(str(trial), hub=hub, base=base_text, threads=job.threads, probe=False).report
        finally:
            shutil.rmtree(trial, ignore_errors=True)

    job = replace(job, work=folder, rescan=rescan)
    result = kept.find(folder)
    if result is None:
        result = _run(purifier, job)
        kept.keep(folder, result)
    with unfinished(request.output) as part:
        written = write_model(checkpoint, result.edits, part, progress)
        progress.stage("scanning the result")
        # Probed just below, with more to try than a scan would; and not at all where the user says so.
        scanned = audit_repo(str(part), hub=hub, base=base_text, progress=progress, threads=job.threads, probe=False)
        after = _named(scanned, request)
        probed = _probed(request, job, before, part)
        evaluations = _evaluated(request, job, part)
        gate = judge(before, after, probed, evaluations)
        told = _told(request, job, result, written, (before, after), probed, evaluations, gate)
        told["created_at"] = clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        (part / LOG_FILE).write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        write_qq(part, result.log)
    shutil.rmtree(work, ignore_errors=True)
    return Purified(
        folder=request.output, before=before, after=after, gate=gate, chosen=result.chosen, evaluations=evaluations
    )


def _no_data(purifier: Purifier, ref: RepoRef, hub: Hub) -> BadReference:
    """Return (not raise) the error for a method without its data; the datasets of the card are offered."""
    from scanner.facts import collect

    named = declared_datasets(collect(ref, hub).card.metadata)
    offer = f" The card says it was trained on {' and '.join(named)}: try --data {named[0]}." if named else ""
    return BadReference(
        f"--method {purifier.name} needs clean samples: give a CSV, JSONL or Parquet file, or a dataset on the Hub, "
        f"with --data.{offer}"
    )


def _scanned(
    request: PurifyRequest, purifier: Purifier, ref: RepoRef, hub: Hub, progress: Progress
) -> tuple[AuditReport, RepoRef | None]:
    """The scan of the candidate, given or made now, and the base that it verified.

    Raises:
        NothingToCompare: no base is known and the method needs one.
        CouldNotConclude: the base is refuted or unproven, or the scan failed, and the method needs a base.
        BadReference: the given report is about something else.
    """
    if request.report is not None:
        _check_report(request.report, ref)
        audited = Audited(report=request.report, ending="concluded")
    else:
        audited = audit_repo(
            request.model,
            hub=hub,
            base=request.base,
            progress=progress,
            threads=request.threads,
            probe=request.probe and purifier.wants_probe and not request.triggers,
        )
    report, lineage = audited.report, audited.report.lineage
    if not purifier.needs_base and lineage.status != "verified":
        return report, None
    if audited.ending == "could_not_conclude":
        raise CouldNotConclude(audited.problem or "The model could not be scanned.")
    if audited.ending == "nothing_to_compare" or lineage.base is None:
        raise NothingToCompare(
            audited.problem or f"{ref.name} declares no base model; name one with --base for --method {purifier.name}."
        )
    if lineage.status != "verified":
        how = "refute" if lineage.status == "contradicted" else "do not bear out"
        raise CouldNotConclude(
            f"The weights {how} that {ref.name} descends from {lineage.base.name}, so nothing of that base is put into "
            "it; name the true base with --base."
        )
    base = RepoRef(repo_id=lineage.base.repo_id, path=lineage.base.path, revision=lineage.base.revision)
    return report, base


def _check_report(report: AuditReport, ref: RepoRef) -> None:
    subject = report.subject
    same_repo = ref.repo_id is not None and (subject.repo_id, subject.revision) == (ref.repo_id, ref.revision)
    same_path = (
        ref.path is not None and subject.path is not None and Path(ref.path).resolve() == Path(subject.path).resolve()
    )
    if not (same_repo or same_path):
        raise BadReference(
            f"The report is about {shown(subject.name)} at {shown(str(subject.revision))}, not about {ref}; scan this "
            "model again."
        )


def _job(
    request: PurifyRequest,
    purifier: Purifier,
    report: AuditReport,
    ref: RepoRef,
    base_ref: RepoRef | None,
    hub: Hub,
    work: Path,
    progress: Progress,
) -> PurifyJob:
    """Fetch what is missing and read the data."""
    models = work / "models"
    candidate = snapshot(ref, hub, models, progress)
    base = snapshot(base_ref, hub, models, progress) if base_ref is not None else None
    checkpoint = open_checkpoint(candidate)
    kind = kind_of(checkpoint.facts.config)
    if kind not in purifier.kinds:
        fitting = [each.name for each in PURIFIERS.values() if kind in each.kinds]
        raise PurifyFailed(f"--method {purifier.name} does not fit this model ({kind}); {', '.join(fitting)} would.")
    return PurifyJob(
        candidate=candidate,
        base=base,
        kind=kind,
        work=work,
        report=report,
        data=_data(request, checkpoint, kind, progress),
        options=request.options,
        tuning=request.tuning,
        triggers=tuple(text for trigger in request.triggers for text in trigger.texts),
        with_e_pur=request.with_e_pur,
        seed=request.seed,
        device=request.device,
        threads=request.threads,
        progress=progress,
    )


def _data(request: PurifyRequest, checkpoint: Checkpoint, kind: ModelKind, progress: Progress) -> CleanData | None:
    if request.data is None:
        return None
    progress.stage("reading clean samples")
    settings = load_settings()
    samples = load_samples(request.data, checkpoint.facts.config or {}, kind, seed=request.seed, token=settings.token)
    return split_samples(samples, seed=request.seed)


def _run(purifier: Purifier, job: PurifyJob) -> PurifyResult:
    """Run the method; ``restore`` takes E-PUR beside it by stacking, the methods that tune reset the rows first."""
    if not (job.with_e_pur and purifier.name == "restore"):
        return purifier.run(job)
    rows = PURIFIERS["e-pur"].run(replace(job, with_e_pur=False, options=None))
    return stacked(rows, purifier.run(job))


def _named(audited: Audited, request: PurifyRequest) -> AuditReport:
    """The report of the result under the name that it is about to get."""
    subject = replace(audited.report.subject, path=str(request.output))
    return replace(audited.report, subject=subject)


def _probed(request: PurifyRequest, job: PurifyJob, before: AuditReport, part: Path) -> Reprobe:
    if not request.probe:
        return Reprobe(made=False, why="--no-probe")
    return reprobe(
        part, before, job.triggers, base=job.base, seed=request.seed, threads=request.threads or 1,
        progress=job.progress,
    )  # fmt: skip


def _evaluated(request: PurifyRequest, job: PurifyJob, part: Path) -> tuple[Evaluation, Evaluation] | None:
    """Both sides on the test part, which nothing was chosen on."""
    if job.data is None or job.kind not in {"classifier", "image"}:
        return None
    test = job.data.test

    def measured(folder: Path) -> Evaluation:
        return evaluate(
            folder,
            job.kind,
            test.inputs,
            test.labels,
            job.data.class_names if job.data else (),
            triggers=request.triggers if job.kind == "classifier" else (),
            seed=request.seed,
            max_length=job.tuning.max_length,
            progress=job.progress,
        )

    return measured(job.candidate), measured(part)


def _told(
    request: PurifyRequest,
    job: PurifyJob,
    result: PurifyResult,
    written: Written,
    reports: tuple[AuditReport, AuditReport],
    probed: Reprobe,
    evaluations: tuple[Evaluation, Evaluation] | None,
    gate: Gate,
) -> dict[str, Any]:
    """The content of purification.json."""
    before, after = reports
    data = job.data
    options = request.options
    return {
        "schema": SCHEMA,
        "tool": {"name": "hubaudit", "version": tool_version()},
        "subject": asdict(before.subject),
        "base": asdict(before.lineage.base) if before.lineage.base else None,
        "method": request.method,
        "chosen": result.chosen,
        "options": asdict(options) if is_dataclass(options) and not isinstance(options, type) else {},
        "tuning": asdict(request.tuning),
        "with_e_pur": request.with_e_pur,
        "triggers": [asdict(trigger) for trigger in request.triggers],
        "seed": request.seed,
        "data": {
            "source": data.source,
            "sha256": data.digest,
            "tune": len(data.tune),
            "select": len(data.select),
            "test": len(data.test),
        }
        if data
        else None,
        "changed": {
            "dimensions": sum(written.changed.values()),
            "tensors": dict(written.changed),
            "files": {path: asdict(h) for path, h in written.files.items() if h.before != h.after},
            "left_out": sorted(written.left_out),
        },
        "log": dict(result.log),
        "before": _verdict(before),
        "after": _verdict(after),
        "reprobe": asdict(probed),
        "evaluation": {"before": asdict(evaluations[0]), "after": asdict(evaluations[1])} if evaluations else None,
        "gate": asdict(gate),
    }


def _verdict(report: AuditReport) -> dict[str, Any]:
    return {
        "outcome": report.verdict.outcome,
        "score": report.verdict.score,
        "false_positive_rate": report.verdict.false_positive_rate,
        "findings": [
            {"rule": finding.rule_id, "severity": finding.severity, "fingerprint": finding.fingerprint}
            for finding in report.findings
        ],
    }
