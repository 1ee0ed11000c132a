"""``hubaudit publish``: shows what publishing would change, and does it when told to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.command import Exit, ends_with_a_sentence, exit_of, load_report, open_hub, sentence, template_dir_option
from pipelines.settings import load_settings

if TYPE_CHECKING:
    from audit.records import AuditReport
    from pipelines.publish import Publisher
    from pipelines.publishing.plan import Plan

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("reports", metavar="REPORT...", nargs=-1, required=True, type=FILE)
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
@click.option(
    "--allow",
    type=FILE,
    metavar="FILE",
    help="Write to your own repositories and to those in FILE only (org/name or org/*, one a line).",
)
@click.option(
    "--opt-out",
    type=FILE,
    metavar="FILE",
    help="Never write to the repositories in FILE.",
)
@click.option(
    "--daily-cap",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Repositories of others, not on the allow-list, that are written to in one day.",
)
@click.option("--front-matter", is_flag=True, help="Also put one line, verdict and date, into the card's metadata.")
@click.option("--report-url", metavar="URL", help="With --front-matter: the address of the full report.")
@template_dir_option
@ends_with_a_sentence
def publish(
    reports: Sequence[Path],
    form: str,
    yes: bool,
    disclose: bool,
    allow: Path | None,
    opt_out: Path | None,
    daily_cap: int,
    front_matter: bool,
    report_url: str | None,
    template_dir: Path | None,
) -> None:
    """Show what publishing REPORT would change on the Hub; with --yes, do it.

    Only the text between hubaudit's markers in README.md is touched (with --front-matter, one line of the metadata
    as well): every other byte stays as it is. There is one
    open thread per repository; a second run updates it, and closes it when what it reported is gone. Findings of
    high severity are not published without --disclose: a letter to the owner is printed instead.

    An owner says no by closing the thread or by `hubaudit: false` in the card's metadata. With several reports, your
    own repositories come first, then those allowed.

    \b
    Examples:
      hubaudit publish report.json                 the diff and the text of the pull request
      hubaudit publish report.json --yes           open the pull request, or update it
      hubaudit publish report.json --as section    edit the card of a model of yours
    """
    from pipelines.publish import Publisher
    from pipelines.publishing.consent import RepoList, read_list
    from pipelines.publishing.diary import Diary
    from pipelines.publishing.planner import CardMetadata, Etiquette
    from reports.front_matter import entry_of
    from reports.template_folder import templates_of

    if report_url and not (front_matter and len(reports) == 1):
        raise click.UsageError("--report-url goes with --front-matter and one report.")
    etiquette = Etiquette(
        allowed=read_list(allow) if allow else None,
        opted_out=read_list(opt_out) if opt_out else RepoList(),
        disclose=disclose,
    )
    diary = Diary(load_settings().state_folder / "published.json", cap=daily_cap)
    metadata = CardMetadata(wanted=front_matter, report_url=report_url)
    publisher = Publisher(open_hub(), diary=diary, etiquette=etiquette, metadata=metadata)
    loaded = [load_report(path) for path in reports]
    entry_of(loaded[0], url=report_url)  # a bad address is said before anything is asked of the Hub
    with templates_of(template_dir):
        codes = [_publish_one(publisher, report, form, yes=yes) for report in publisher.in_order(loaded)]
    raise SystemExit(int(max(codes)))


def _publish_one(publisher: "Publisher", report: "AuditReport", form: str, *, yes: bool) -> Exit:
    """Publish one of several reports: what goes wrong with it is told, and does not stop the others."""
    from scanner.errors import HubAuditError

    try:
        return _show_and_write(publisher, report, form, yes=yes)
    except HubAuditError as error:
        click.echo(f"hubaudit: {sentence(error)}", err=True)
        return exit_of(error)


def _show_and_write(publisher: "Publisher", report: "AuditReport", form: str, *, yes: bool) -> Exit:
    if not yes:
        plan = publisher.plan(report, form=form)
        _show(plan)
        return _not_written(plan)
    plan, done = publisher.publish_report(report, form=form, show=_show)
    if done is None:
        return _not_written(plan)
    click.echo(done)
    return Exit.NOTHING_FOUND


def _show(plan: "Plan") -> None:
    click.echo(plan.shown, nl=not plan.shown.endswith("\n"))
    for note in plan.notes:
        click.echo(f"hubaudit: {note}", err=True)


def _not_written(plan: "Plan") -> Exit:
    """Say why nothing is written. An owner's no is respected, which is no failure."""
    if plan.blocked:
        click.echo(f"hubaudit: {plan.blocked}", err=True)
    elif plan.changes:
        click.echo("hubaudit: dry run, nothing was written; add --yes to publish this.", err=True)
    else:
        click.echo("hubaudit: already up to date, nothing to write.", err=True)
    match plan.block:
        case "severe":
            return Exit.FINDING
        case "read_only" | "other_thread":
            return Exit.COULD_NOT_CONCLUDE
        case "opted_out" | "not_allowed" | None:
            return Exit.NOTHING_FOUND
