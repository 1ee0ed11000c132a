"""The command line. Thin: it parses, calls one function of the pipelines, and turns the outcome into an exit code.

Heavy imports stay inside the commands, so that ``hubaudit --help`` answers at once.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.settings import load_settings, tool_version

if TYPE_CHECKING:
    from audit.records import AuditReport
    from pipelines.audit_repo import Audited
    from scanner.hub import Hub

FORMATS = ("table", "json", "markdown", "html", "sarif", "summary")
SUFFIXES = {".json": "json", ".md": "markdown", ".html": "html", ".htm": "html", ".sarif": "sarif"}
FAIL_ON = ("review", "fail", "never")


class Exit(IntEnum):
    """What the process says when it ends. 3 and 4 are never reported as clean."""

    NOTHING_FOUND = 0
    FINDING = 1
    USAGE = 2
    COULD_NOT_CONCLUDE = 3
    NOTHING_TO_COMPARE = 4


Command = TypeVar("Command", bound=Callable[..., Any])


def _ends_with_a_sentence(command: Command) -> Command:
    """Turn errors into one clean sentence on stderr and the right exit code; a traceback only with --debug."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from reports.safe_text import clean_line
        from scanner.errors import BadReference, HubAuditError, NothingToCompare

        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BadReference as error:
            code, text = Exit.USAGE, str(error)
        except NothingToCompare as error:
            code, text = Exit.NOTHING_TO_COMPARE, str(error)
        except HubAuditError as error:
            code, text = Exit.COULD_NOT_CONCLUDE, str(error)
        except OSError as error:
            code, text = (
                Exit.COULD_NOT_CONCLUDE,
                f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            )
        except Exception as error:  # noqa: BLE001
            code = Exit.COULD_NOT_CONCLUDE
            text = (
                f"internal error ({type(error).__name__}: {error}); nothing was concluded. "
                "Run again with --debug and report it."
            )
        context = click.get_current_context(silent=True)
        if context and (context.find_root().params or {}).get("debug"):
            traceback.print_exc()
        click.echo(f"hubaudit: {clean_line(text, limit=2000)}", err=True)
        raise SystemExit(int(code))

    return run  # type: ignore[return-value]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(tool_version(), prog_name="hubaudit")
@click.option("--debug", is_flag=True, help="Show a traceback when something breaks.")
@click.option("--quiet", is_flag=True, help="No progress on stderr, even on a terminal.")
def cli(debug: bool, quiet: bool) -> None:
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


@cli.command()
@click.argument("model")
@click.option("--base", metavar="BASE", help="Compare with this base instead of the declared one.")
@click.option("--full", is_flag=True, help="Read every tensor whole (the default).")
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS), help="Repeat, in pairs with --output.")
@click.option(
    "--output", "outputs", multiple=True, metavar="PATH", help="Where the format before it goes; - is stdout."
)
@click.option(
    "--fail-on",
    type=click.Choice(FAIL_ON),
    default="review",
    show_default=True,
    help="The mildest outcome that exits with 1.",
)
@click.pass_context
@_ends_with_a_sentence
def scan(
    context: click.Context,
    model: str,
    base: str | None,
    full: bool,  # noqa: ARG001
    formats: tuple[str, ...],
    outputs: tuple[str, ...],
    fail_on: str,
) -> None:
    """Scan MODEL: lineage, weights, card, verdict, reports.

    MODEL and BASE are `org/name`, `org/name@revision`, a Hub URL, or a local folder. Both are pinned to a commit
    before anything is read. Nothing from a repository is executed, and nothing is written to the Hub.

    \b
    Examples:
      hubaudit scan org/model
      hubaudit scan ./my-finetune --base org/base --format json --output report.json
      hubaudit scan org/model --format html --output a.html --format sarif --output a.sarif --fail-on fail
    """
    from pipelines.audit_repo import audit_repo
    from pipelines.progress import terminal_progress

    wanted = pair_outputs(formats, outputs)
    _check_folders(wanted)
    with terminal_progress(quiet=context.find_root().params["quiet"]) as progress:
        audited = audit_repo(model, base=base, hub=open_hub(), progress=progress)
    write_reports(audited.report, wanted)
    if audited.problem:
        from reports.safe_text import clean_line

        click.echo(f"hubaudit: {clean_line(audited.problem, limit=2000)}", err=True)
    raise SystemExit(int(exit_code(audited, fail_on)))


@cli.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "formats", multiple=True, type=click.Choice(FORMATS), help="As in `scan`.")
@click.option("--output", "outputs", multiple=True, metavar="PATH", help="As in `scan`; - is stdout.")
@_ends_with_a_sentence
def report(report: Path, formats: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Render REPORT, a JSON report of an earlier scan, again in another format.

    \b
    Example:
      hubaudit report report.json --format html --output report.html
    """
    wanted = pair_outputs(formats, outputs)
    _check_folders(wanted)
    write_reports(load_report(report), wanted)


@cli.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--as",
    "form",
    type=click.Choice(("section", "pr", "discussion")),
    default="pr",
    show_default=True,
    help="A commit to the card, a pull request, or a discussion.",
)
@click.option("--yes", is_flag=True, help="Write to the Hub. Without it the change is only shown.")
@click.option("--disclose", is_flag=True, help="Publish severe findings in public. Tell the owner first.")
@_ends_with_a_sentence
def publish(report: Path, form: str, yes: bool, disclose: bool) -> None:
    """Show what publishing REPORT would change on the Hub; with --yes, do it.

    Only the text between hubaudit's markers in README.md is touched: every other byte stays as it is. There is one
    open thread per repository, and a second run updates it. Findings of high severity are not published without
    --disclose; the text of a private report is printed instead.
    """
    from pipelines.publish import Publisher

    settings = load_settings()
    publisher = Publisher(endpoint=settings.endpoint, token=settings.token, timeout_seconds=settings.timeout_seconds)
    plan = publisher.plan(load_report(report), form=form, disclose=disclose)
    click.echo(plan.shown, nl=not plan.shown.endswith("\n"))
    if plan.blocked:
        click.echo(f"hubaudit: {plan.blocked}", err=True)
        raise SystemExit(int(Exit.FINDING))
    if not plan.changes:
        click.echo("hubaudit: already up to date, nothing to write.", err=True)
    elif yes:
        click.echo(publisher.publish(plan))
    else:
        click.echo("hubaudit: dry run, nothing was written; add --yes to publish this.", err=True)


@cli.command()
@click.argument("rule", required=False)
@_ends_with_a_sentence
def explain(rule: str | None) -> None:
    """Explain RULE: what it measures, its null, its error rates, benign explanations and what to do.

    Without RULE, list all rules.
    """
    from audit import rulebook

    if rule is None:
        for known in rulebook.all_rules():
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


def open_hub() -> "Hub":
    """Return the Hub reader that the environment describes."""
    from scanner.hub import Hub

    settings = load_settings()
    return Hub(
        endpoint=settings.endpoint,
        token=settings.token,
        timeout_seconds=settings.timeout_seconds,
        max_wait_seconds=settings.patience_seconds,
    )


def load_report(path: Path) -> "AuditReport":
    """Read a JSON report.

    Raises:
        click.UsageError: the file is not a hubaudit report.
    """
    from reports.json_v1 import ReportFormatError, load

    try:
        return load(path.read_bytes())
    except ReportFormatError as error:
        raise click.UsageError(f"{path}: {error}") from None


def pair_outputs(formats: Sequence[str], outputs: Sequence[str]) -> list[tuple[str, str]]:
    """Pair formats with outputs in the order given.

    With no output, the formats go to stdout, and with no format either, that is the table. With outputs alone, each
    file's suffix says the format. One format more than outputs sends the last one to stdout.

    Raises:
        click.UsageError: the numbers do not match, or a suffix is unknown, or stdout is asked for twice.
    """
    if not formats and not outputs:
        return [("table", "-")]
    if not formats:
        formats = [_format_of(path) for path in outputs]
    if len(formats) == len(outputs) + 1:
        outputs = [*outputs, "-"]
    if len(formats) != len(outputs):
        raise click.UsageError(
            f"{len(formats)} --format and {len(outputs)} --output: give them in pairs, `--format F --output PATH`."
        )
    if list(outputs).count("-") > 1:
        raise click.UsageError("only one format can go to stdout; give the others an --output.")
    return list(zip(formats, outputs, strict=True))


def _format_of(path: str) -> str:
    """Return the format that a file's suffix stands for."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise click.UsageError(f"--output {path}: cannot tell the format from the name; add --format.")
    return SUFFIXES[suffix]


def _check_folders(wanted: Sequence[tuple[str, str]]) -> None:
    """Refuse before the work, not after it, when a document could not be written."""
    for _, target in wanted:
        if target != "-" and not Path(target).parent.is_dir():
            raise click.UsageError(f"--output {target}: the folder {Path(target).parent} does not exist.")
        if target != "-" and Path(target).is_dir():
            raise click.UsageError(f"--output {target}: this is a folder; name a file in it.")


def write_reports(report: "AuditReport", wanted: Sequence[tuple[str, str]]) -> None:
    """Render the report in each format and write it where it was asked for, stdout last."""
    from pipelines.output import write_document
    from reports.formats import render

    rendered = [(render(report, name, colour=target == "-" and sys.stdout.isatty()), target) for name, target in wanted]
    for content, target in sorted(rendered, key=lambda pair: pair[1] == "-"):
        write_document(content, target)


def exit_code(audited: "Audited", fail_on: str) -> Exit:
    """Return the exit code of a scan."""
    match audited.ending:
        case "nothing_to_compare":
            return Exit.NOTHING_TO_COMPARE
        case "could_not_conclude":
            return Exit.COULD_NOT_CONCLUDE
        case "concluded":
            pass
    failing = {"review": {"review", "fail"}, "fail": {"fail"}, "never": set[str]()}[fail_on]
    if audited.report.verdict.outcome in failing:
        return Exit.FINDING
    return Exit.COULD_NOT_CONCLUDE if audited.report.verdict.outcome == "inconclusive" else Exit.NOTHING_FOUND
