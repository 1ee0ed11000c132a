"""The command line. Thin: it parses, calls one function of the pipelines, and turns the outcome into an exit code.

Heavy imports stay inside the commands, so that ``hubaudit --help`` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.attest_cli import attest, verify_attestation
from pipelines.card_cli import card
from pipelines.command import (
    BASELINE_HELP,
    FAILING,
    Exit,
    baseline_option,
    fail_on_option,
    in_one_line,
    load_baseline,
    load_report,
    open_hub,
    template_dir_option,
)
from pipelines.command import ends_with_a_sentence as _ends_with_a_sentence
from pipelines.data_options import data_options, data_spec
from pipelines.evaluate_cli import evaluate
from pipelines.fleet_cli import fleet
from pipelines.lineage_cli import lineage
from pipelines.output import check_targets, pair_outputs, report_options, write_reports
from pipelines.publish_cli import publish
from pipelines.purify_cli import purify
from pipelines.serve_cli import serve
from pipelines.settings import load_settings, tool_version
from pipelines.sizes import SizeParam

if TYPE_CHECKING:
    from audit.records import AuditReport
    from pipelines.audit_repo import Audited
    from pipelines.purify.data import DataSpec


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(tool_version(), prog_name="hubaudit")
@click.option("--debug", is_flag=True, help="Show a traceback when something breaks.")
@click.option("--quiet", is_flag=True, help="No progress on stderr, even on a terminal.")
def cli(debug: bool, quiet: bool) -> None:  # noqa: ARG001  # --debug is read where errors are told
    """Check whether a model on the Hugging Face Hub is what its card says it is.

    hubaudit finds the base model that a fine-tune declares, proves or refutes the declaration from the weights,
    streams both weight sets side by side without a full download, and points at what changed in a way that
    ordinary fine-tuning does not.

    \b
    Start here:
      hubaudit scan org/model                      the verdict, on this terminal
      hubaudit scan org/model --output audit.html  the same, as a page
      hubaudit explain HA201                       what a rule measures, and what to do

    \b
    Exit codes:
      0  nothing found at or above --fail-on     3  could not conclude (network, gated, unreadable)
      1  a finding at or above --fail-on         4  nothing to compare (no base, or no weights)
      2  wrong usage                             3 and 4 never mean clean
    """
    if quiet or not sys.stderr.isatty():
        # Read when huggingface_hub is imported, which no command has done yet: its bars are progress like ours.
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@cli.command()
@click.argument("model")
@click.option("--base", metavar="BASE", help="Compare with this base instead of the declared one.")
@click.option(
    "--budget",
    type=SizeParam(),
    metavar="SIZE",
    help="Read a sample of about so many bytes of weights, such as 200MB; never ends with a pass.",
)
@click.option("--full", is_flag=True, help="Read every tensor whole (the default).")
@click.option("--max-requests", type=click.IntRange(min=1), metavar="N", help="Stop after so many requests to the Hub.")
@click.option("--no-resume", is_flag=True, help="Keep nothing of a large scan that is interrupted, and begin anew.")
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Run the model on made-up texts and look for words that decide its answer. On by default, but with --budget, "
    "for text classifiers in safetensors files of up to 700 MB, within a minute or two of one core; --probe tries the "
    "whole vocabulary of larger ones too, with ten times the work. Language models are measured and not judged, by "
    "default where the weights suspect a word or up to 30 MB.",
)
@click.option(
    "--data",
    metavar="D",
    help="Clean samples of the model's task: CSV, JSONL, Parquet, or a dataset as org/name. The model is run on 64 of "
    "them, and the report says whether the weights moved as these explain (HA405). Reads both sides whole once more.",
)
@data_options
@report_options
@fail_on_option()
@baseline_option(BASELINE_HELP)
@template_dir_option
@click.pass_context
@_ends_with_a_sentence
def scan(
    context: click.Context,
    /,
    model: str,
    base: str | None,
    budget: int | None,
    full: bool,
    max_requests: int | None,
    no_resume: bool,
    probe: bool | None,
    data: str | None,
    formats: tuple[str, ...],
    outputs: tuple[str, ...],
    fail_on: str,
    baseline: Path | None,
    template_dir: Path | None,
    **named: Any,
) -> None:
    """Scan MODEL: lineage, weights, card, verdict, reports.

    MODEL and BASE are `org/name`, `org/name@revision`, a Hub URL, or a local folder. Both are pinned to a commit
    before anything is read. Nothing from a repository is executed, and nothing is written to the Hub.

    With --budget, small tensors are read whole and of the others a random sample of rows, on both sides; what looks
    unusual is then read further, for at most as many bytes again. The report says how likely an edit of each kind
    would have shown. What was not read is never called clean: such a scan ends with a finding (exit code 1) or
    inconclusive (3), unless the budget was enough for everything.

    A large scan of Hub repositories that is interrupted goes on where it was when it is run again.

    \b
    Examples:
      hubaudit scan org/model
      hubaudit scan org/model --budget 200MB
      hubaudit scan org/model --data clean.csv --output audit.html
      hubaudit scan ./my-finetune --base org/base --format json --output report.json
      hubaudit scan org/model --format html --output a.html --format sarif --output a.sarif --fail-on fail
    """
    from pipelines.audit_repo import audit_repo
    from pipelines.progress import terminal_progress
    from reports.template_folder import templates_of

    if budget is not None and full:
        raise click.UsageError("--budget and --full exclude each other: leave out one of them.")
    wanted = pair_outputs(formats, outputs)
    check_targets(wanted)
    accepted = load_baseline(baseline)
    samples = _samples(data, budget, named)
    with templates_of(template_dir):
        with terminal_progress(quiet=context.find_root().params["quiet"]) as progress:
            audited = audit_repo(
                model,
                base=base,
                hub=open_hub(most_requests=max_requests),
                progress=progress,
                accepted=accepted,
                probe=probe,
                budget_bytes=budget,
                resume_folder=None if no_resume else load_settings().cache_folder / "scans",
                data=samples,
            )
        write_reports(audited.report, wanted)
    if audited.problem:
        click.echo(f"hubaudit: {in_one_line(audited.problem)}", err=True)
    raise SystemExit(int(exit_code(audited, fail_on)))


def _samples(data: str | None, budget: int | None, named: dict[str, Any]) -> "DataSpec | None":
    """Where the samples of ``--data`` are; None without.

    Raises:
        UsageError: an option of ``--data`` without it, or a budget beside it.
        BadReference: there is no such file, and no dataset could be called that.
    """
    if data is None:
        alone = [name for name, value in named.items() if value]
        if alone:
            raise click.UsageError(f"--{alone[0].replace('_', '-')} says how --data is read: name the data too.")
        return None
    if budget is not None:
        raise click.UsageError("--data reads both sides whole: leave out --budget, or the data.")
    from pipelines.data_mode import MOST_DRAWN
    from pipelines.purify.rows import check_source

    check_source(data)
    return data_spec(data, MOST_DRAWN, named)


@cli.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@report_options
@template_dir_option
@_ends_with_a_sentence
def report(report: Path, formats: tuple[str, ...], outputs: tuple[str, ...], template_dir: Path | None) -> None:
    """Render REPORT, a JSON report of an earlier scan, again in another format.

    \b
    Example:
      hubaudit report report.json --format html --output report.html
    """
    from reports.template_folder import templates_of

    wanted = pair_outputs(formats, outputs)
    check_targets(wanted)
    with templates_of(template_dir):
        write_reports(_beside_its_log(load_report(report), report), wanted)


def _beside_its_log(report: "AuditReport", path: Path) -> "AuditReport":
    """Return the report with what the log of a purification in the same folder says of its subject."""
    from reports.purification import LOG_NAME, MAX_LOG_BYTES, with_purification

    log = path.with_name(LOG_NAME)
    if report.purification is not None or not log.is_file() or log.stat().st_size > MAX_LOG_BYTES:
        return report
    return with_purification(report, log.read_bytes())


cli.add_command(attest)
cli.add_command(card)
cli.add_command(evaluate)
cli.add_command(fleet)
cli.add_command(lineage)
cli.add_command(publish)
cli.add_command(purify)
cli.add_command(serve)
cli.add_command(verify_attestation)


@cli.command()
@click.argument("rule", required=False)
@_ends_with_a_sentence
def explain(rule: str | None) -> None:
    """Explain RULE: what it measures, its null, its error rates, benign explanations and what to do.

    Without RULE, list all rules.
    """
    from audit import rulebook

    if rule is None:
        for known in sorted(rulebook.all_rules(), key=lambda known: known.id):
            click.echo(f"{known.id}  {known.severity:<8}  {known.title}")
        return
    try:
        click.echo(rulebook.explain(rule))
    except KeyError:
        raise click.UsageError(f"there is no rule {rule!r}; {_did_you_mean(rule)}") from None


def _did_you_mean(rule: str) -> str:
    """Return a hint naming the nearest rule ids."""
    from difflib import get_close_matches

    from audit import rulebook

    near = get_close_matches(rule.upper(), [known.id for known in rulebook.all_rules()], n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else "`hubaudit explain` lists them all."


def exit_code(audited: "Audited", fail_on: str) -> Exit:
    """Return the exit code of a scan."""
    match audited.ending:
        case "nothing_to_compare":
            return Exit.NOTHING_TO_COMPARE
        case "could_not_conclude":
            return Exit.COULD_NOT_CONCLUDE
        case "concluded":
            pass
    if audited.report.verdict.outcome in FAILING[fail_on]:
        return Exit.FINDING
    return Exit.COULD_NOT_CONCLUDE if audited.report.verdict.outcome == "inconclusive" else Exit.NOTHING_FOUND
