"""What the GitHub Action does: audits the models it is given, and tells the runner.

``action.yml`` runs it as ``python -m pipelines.action``. Each model is scanned in a process of its own, given its
arguments as a list: no input reaches a shell, and one model that breaks ends no other's audit.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from audit.records import AuditReport, Outcome
from pipelines.actions.inputs import Inputs, Target, read_inputs
from pipelines.actions.memory import Memory
from pipelines.actions.protocol import Runner
from pipelines.command import Exit, exit_of, sentence
from pipelines.output import write_reports
from pipelines.publish import Publisher
from pipelines.publishing.diary import Diary
from pipelines.scan_process import ScanRequest, run_scan
from pipelines.settings import Settings, load_settings
from reports.formats import RENDERERS
from reports.json_v1 import ReportFormatError, load
from reports.template_folder import templates_of
from reports.wording import headline
from scanner.errors import HubAuditError
from scanner.hub import Hub

WORST_FIRST = (Exit.FINDING, Exit.USAGE, Exit.COULD_NOT_CONCLUDE, Exit.NOTHING_TO_COMPARE, Exit.NOTHING_FOUND)
OUTCOMES: tuple[Outcome, ...] = ("fail", "review", "inconclusive", "pass")
"""Of several models, the first of these that occurs is the verdict."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One model's audit: its exit code, and its report with the file it is in (None when there is none)."""

    target: Target
    code: Exit
    report: AuditReport | None
    path: Path


def main(environment: Mapping[str, str] | None = None, stream: TextIO | None = None) -> int:
    """Do what the ``INPUT_…`` variables say and return the exit code of the step."""
    env = os.environ if environment is None else environment
    runner = Runner(env, stream or sys.stdout)
    try:
        inputs = read_inputs(env, tuple(RENDERERS))
        with templates_of(inputs.template_dir):
            code = _run(inputs, env, runner)
    except HubAuditError as error:
        code = exit_of(error)
        runner.annotate("error", "hubaudit", sentence(error))
    except OSError as error:
        code = Exit.COULD_NOT_CONCLUDE
        runner.annotate("error", "hubaudit", f"{error.strerror or error}: {error.filename or ''}")
    runner.output("exit-code", str(int(code)))
    return int(code)


def _run(inputs: Inputs, environment: Mapping[str, str], runner: Runner) -> Exit:
    settings = load_settings(environment)
    hub = Hub(
        endpoint=settings.endpoint,
        token=settings.token,
        timeout_seconds=settings.timeout_seconds,
        max_wait_seconds=settings.patience_seconds,
    )
    _sarif_folder(inputs).mkdir(parents=True, exist_ok=True)
    memory = Memory(inputs.ledger, baseline=inputs.baseline)
    audits = []
    for number, target in enumerate(_targets(inputs, hub)):
        audit = _audit(target, number, inputs, environment, hub, memory, runner)
        audits.append(audit)
        _tell(audit, inputs, runner)
    _set_outputs(audits, inputs, runner)
    codes = [audit.code for audit in audits]
    if inputs.publish != "none":
        codes += _publish(audits, inputs, settings, hub, runner)
    return next((code for code in WORST_FIRST if code in codes), Exit.NOTHING_TO_COMPARE)


def _targets(inputs: Inputs, hub: Hub) -> Iterator[Target]:
    """Yield the models that were named, then those of the authors, each model once."""
    seen = set()
    for target in inputs.targets:
        seen.add(target.model)
        yield target
    for author in inputs.authors:
        for model in hub.list_models(author=author):
            name = str(model["id"])
            if name not in seen:
                seen.add(name)
                yield replace(inputs.author_target, model=name)


def _audit(
    target: Target,
    number: int,
    inputs: Inputs,
    environment: Mapping[str, str],
    hub: Hub,
    memory: Memory,
    runner: Runner,
) -> Audit:
    path = inputs.output / f"{number + 1:03}-{_UNSAFE.sub('--', target.model).strip('.-')[:100]}.json"
    known = memory.recall(target, hub, path)
    if known is not None and (report := _load(path)) is not None:
        runner.say(f"{target.model}: unchanged since its last audit")
        return Audit(target=target, code=Exit(known), report=report, path=path)
    request = ScanRequest(
        model=target.model, output=path, base=target.base, fail_on=target.fail_on, baseline=inputs.baseline
    )
    done = run_scan(request, environment)
    runner.say(done.log)
    report = _load(path)
    if report is not None:
        memory.keep(target, report, path, int(done.code))
    return Audit(target=target, code=done.code, report=report, path=path)


def _load(path: Path) -> AuditReport | None:
    try:
        return load(path.read_bytes())
    except (OSError, ReportFormatError):
        return None


def _tell(audit: Audit, inputs: Inputs, runner: Runner) -> None:
    """Show one model's result, and write its report in the formats asked for."""
    name = audit.target.model
    line = headline(audit.report) if audit.report else "no report; the log above says why"
    runner.say(f"{name}: {line}")
    match audit.code:
        case Exit.NOTHING_FOUND:
            pass
        case Exit.FINDING:
            runner.annotate("error", name, line)
        case _:
            runner.annotate("warning", name, f"{line} (exit code {int(audit.code)}, which is not a pass)")
    if audit.report is None:
        return
    try:
        write_reports(audit.report, _documents(audit, inputs))
    except Exception as error:  # noqa: BLE001 - what else was found out is not lost for a document
        runner.annotate("warning", name, f"a document could not be written ({type(error).__name__}: {error})")
    if inputs.summary and not runner.summarise(RENDERERS["summary"].render(audit.report)):
        runner.say(f"{name}: no room left in the job summary")


def _documents(audit: Audit, inputs: Inputs) -> list[tuple[str, str]]:
    """Return the formats to write besides JSON, each with its file; SARIF is always among them."""
    documents = []
    for wanted in inputs.formats:
        stem = f"{audit.path.stem}-summary" if wanted == "summary" else audit.path.stem
        if wanted != "json":
            documents.append((wanted, str(audit.path.with_name(f"{stem}{RENDERERS[wanted].suffix}"))))
    documents.append(("sarif", str(_sarif_folder(inputs) / f"{audit.path.stem}.sarif")))
    return documents + ([("sarif", str(inputs.sarif_file))] if inputs.sarif_file else [])


def _sarif_folder(inputs: Inputs) -> Path:
    return inputs.output / "sarif"


def _set_outputs(audits: list[Audit], inputs: Inputs, runner: Runner) -> None:
    """Set the outputs. A model without a report counts as inconclusive, never as a pass."""
    outcomes = {audit.report.verdict.outcome if audit.report else "inconclusive" for audit in audits}
    reports = [audit for audit in audits if audit.report]
    runner.output("verdict", next((outcome for outcome in OUTCOMES if outcome in outcomes), "inconclusive"))
    runner.output("findings-count", str(sum(_counting(audit.report) for audit in audits if audit.report)))
    runner.output("report-path", str(reports[0].path if len(audits) == len(reports) == 1 else inputs.output))
    runner.output("sarif-path", str(inputs.sarif_file or _sarif_folder(inputs)) if reports else "")


def _counting(report: AuditReport) -> int:
    """Return the number of findings that the baseline does not accept."""
    return sum(1 for finding in report.findings if finding.suppression is None)


def _publish(audits: list[Audit], inputs: Inputs, settings: Settings, hub: Hub, runner: Runner) -> list[Exit]:
    """Publish the reports that concluded; return the exit codes of what went wrong."""
    concluded = [a.report for a in audits if a.report and a.report.verdict.outcome != "inconclusive"]
    folder = inputs.ledger or settings.state_folder
    publisher = Publisher(hub, diary=Diary(folder / "published.json"))
    codes = []
    for report in publisher.in_order(concluded):
        name = report.subject.name
        try:
            plan, done = publisher.publish_report(report, form=inputs.publish)
        except HubAuditError as error:
            codes.append(exit_of(error))
            runner.annotate("warning", name, f"not published: {sentence(error)}")
            continue
        for line in (*plan.notes, done or plan.blocked or "already up to date"):
            runner.say(f"{name}: {line}")
    return codes


if __name__ == "__main__":
    raise SystemExit(main())
