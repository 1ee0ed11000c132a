"""What can be asked of a fleet's ledger, and done with it: the subcommands of ``hubaudit fleet``."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.command import Exit, ends_with_a_sentence
from pipelines.settings import load_settings

if TYPE_CHECKING:
    from pipelines.ledger_views import LedgerReader

DEFAULT_LEDGER = Path("fleet.sqlite")
LEDGER = click.Path(dir_okay=False, path_type=Path)
OUTPUT = click.Path(dir_okay=False, path_type=Path, writable=True)

Command = TypeVar("Command", bound=Callable[..., Any])


def ledger_option(command: Command) -> Command:
    """Add ``--ledger``."""
    return click.option(
        "--ledger", type=LEDGER, default=DEFAULT_LEDGER, show_default=True, help="The SQLite file that keeps all."
    )(command)


def stop_file_of(ledger: Path, given: Path | None) -> Path:
    """Return the file whose appearance ends a run."""
    return given or ledger.with_name(f"{ledger.name}.stop")


@contextmanager
def reading(ledger: Path) -> Iterator["LedgerReader"]:
    """Open a ledger for reading."""
    from pipelines.ledger_views import LedgerReader

    with LedgerReader(ledger) as reader:
        yield reader


@click.command()
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
@ledger_option
@ends_with_a_sentence
def status(form: str, ledger: Path) -> None:
    """Print how many repositories are done, failed and pending, and the worst."""
    from pipelines.fleet_views import status_as_json, status_as_text

    with reading(ledger) as reader:
        click.echo(json.dumps(status_as_json(reader)) if form == "json" else status_as_text(reader))


@click.command()
@click.argument("repos", nargs=-1)
@click.option("--cause", metavar="ERROR", help="Only those that failed for this reason (see `status`).")
@ledger_option
@ends_with_a_sentence
def retry(repos: tuple[str, ...], cause: str | None, ledger: Path) -> None:
    """Make failed repositories due again: all, those named, or those that failed for one cause."""
    from pipelines.ledger import Ledger

    with Ledger(ledger, create=False) as opened:
        opened.recover(now=time.time())
        changed = opened.retry(cause=cause, repo_ids=repos)
    click.echo(f"{changed} due again; run `hubaudit fleet` with the same selection.")


@click.command()
@click.option("--parquet", type=OUTPUT, help="Write a Parquet file (needs pyarrow).")
@click.option("--jsonl", type=OUTPUT, help="Write a line of JSON per repository.")
@ledger_option
@ends_with_a_sentence
def export(parquet: Path | None, jsonl: Path | None, ledger: Path) -> None:
    """Write one row per repository, for analysis elsewhere."""
    from pipelines.export import export_jsonl, export_parquet

    if parquet is None and jsonl is None:
        raise click.UsageError("give --parquet PATH, --jsonl PATH or both.")
    with reading(ledger) as reader:
        for path, write in ((parquet, export_parquet), (jsonl, export_jsonl)):
            if path is not None:
                click.echo(f"{write(reader, path)} rows in {path}", err=True)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("fleet.html"), show_default=True)
@click.option("--title", help="What to call the fleet.")
@ledger_option
@ends_with_a_sentence
def page(output: Path, title: str | None, ledger: Path) -> None:
    """Write a one-page overview: the worst first, families, the trend over runs."""
    from pipelines.fleet_views import overview, title_of
    from pipelines.output import write_document
    from reports.fleet_page import render_fleet

    with reading(ledger) as reader:
        shown = overview(reader, title=title or title_of(ledger), now=datetime.now(UTC))
    write_document(render_fleet(shown), str(output))


@click.command()
@click.argument("repo")
@ledger_option
@ends_with_a_sentence
def show(repo: str, ledger: Path) -> None:
    """Print the report of REPO as JSON; `hubaudit report` renders it in any format."""
    from pipelines.output import STDOUT, write_document

    with reading(ledger) as reader:
        write_document(reader.report(repo), STDOUT)


@click.command()
@ledger_option
@ends_with_a_sentence
def stop(ledger: Path) -> None:
    """Ask the run that drives this ledger to finish what is in flight and end."""
    with reading(ledger):  # a name that is mistyped would stop nothing, and nobody would know
        path = stop_file_of(ledger, None)
    path.touch()
    click.echo(f"{path} is there; the run ends soon. Remove it before the next run.")


@click.command()
@click.option("--publish-to", "repo", required=True, metavar="ORG/NAME", help="The dataset.")
@click.option("--public", is_flag=True, help="For everybody to see; private when left out.")
@click.option("--disclose", is_flag=True, help="With --public: severe findings as well. Tell the owners first.")
@click.option("--jsonl", is_flag=True, help="JSON lines instead of Parquet.")
@click.option("--yes", is_flag=True, help="Write to the Hub. Without it the change is only shown.")
@ledger_option
@ends_with_a_sentence
def publish(repo: str, public: bool, disclose: bool, jsonl: bool, yes: bool, ledger: Path) -> None:
    """Publish the results as a dataset on the Hub; without --yes, only show what would be written."""
    from pipelines.fleet_publish import plan_dataset, publish_dataset

    settings = load_settings()
    with reading(ledger) as reader:
        plan = plan_dataset(reader, repo, private=not public, disclose=disclose, parquet=not jsonl)
        click.echo(plan.shown, nl=False)
        if plan.blocked:
            click.echo(f"hubaudit: {plan.blocked}", err=True)
            raise SystemExit(int(Exit.FINDING))
        if yes:
            click.echo(publish_dataset(reader, plan, endpoint=settings.endpoint, token=settings.token))
        else:
            click.echo("hubaudit: dry run, nothing was written; add --yes to publish this.", err=True)


COMMANDS = (status, retry, export, page, show, stop, publish)
