"""``hubaudit fleet``: many repositories, resumable. What can be asked of a ledger is in ``fleet_ledger_cli``.

Thin, like all of the command line: parses, calls one function, prints. Heavy imports stay inside the commands.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.command import FAILING, Exit, baseline_option, ends_with_a_sentence, fail_on_option, load_baseline
from pipelines.fleet_ledger_cli import COMMANDS, LEDGER, ledger_option, reading, stop_file_of
from pipelines.settings import load_settings
from pipelines.sizes import SizeParam

if TYPE_CHECKING:
    from pipelines.fleet import Observer
    from pipelines.fleet_plan import FleetPlan
    from pipelines.fleet_run import Resources, RunReport
    from pipelines.ledger_selection import Wanted
    from pipelines.selection import Problems, Selection

MEGABYTE = 1_000_000


@click.group(invoke_without_command=True)
@click.option("--author", metavar="NAME", help="All models of a user or organisation.")
@click.option("--base", metavar="MODEL", help="All models that declare this base.")
@click.option("--generations", type=click.IntRange(1, 8), default=1, show_default=True, help="With --base: how deep.")
@click.option("--search", metavar="TEXT", help="All models with this in their id.")
@click.option(
    "--models",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The ids in a file, one a line.",
)
@click.option("--min-downloads", type=click.IntRange(min=0), default=0, help="Only with so many a month.")
@click.option("--max-age", metavar="AGE", help="Only changed within this time: 30d, 12h.")
@click.option("--created-after", metavar="DATE", help="Only made since then.")
@click.option("--gated", type=click.Choice(("any", "open", "gated")), default="any", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many repositories.")
@click.option("--since", metavar="WHEN", help="Only changed since `last` (the last run), a date, 3d or 12h.")
@click.option("--against", metavar="BASE", help="Compare all of them with this base, whatever they declare.")
@click.option("--plan", "plan_only", is_flag=True, help="Show repositories, bytes, requests and hours; scan nothing.")
@click.option(
    "--engine", type=click.Choice(("local", "ray", "hf-jobs")), default="local", show_default=True, help="Where to run."
)
@click.option("--workers", type=click.IntRange(1, 512), help="Processes; as many as cores when left out.")
@click.option(
    "--threads", type=click.IntRange(1, 64), default=4, show_default=True, help="Scans at a time in each process."
)
@click.option("--worker-memory", type=SizeParam(), default="2GiB", show_default=True, help="Replace larger processes.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Bytes of bases; <ledger>.cache.")
@click.option("--cache-size", type=SizeParam(least=0), default="20GB", show_default=True, help="At most; 0 for none.")
@click.option("--quota-share", type=click.FloatRange(0.01, 1.0), default=0.9, show_default=True)
@click.option("--job-timeout", type=click.FloatRange(min=1.0), default=3600.0, show_default=True, help="Seconds.")
@click.option("--retry-wait", type=click.FloatRange(min=0.0), default=30.0, show_default=True, help="Seconds.")
@click.option("--ray-address", metavar="ADDRESS", help="A Ray cluster; Ray is started here when left out.")
@click.option("--bucket", metavar="ORG/NAME", help="hf-jobs: where the ledger is kept.")
@click.option("--flavor", default="cpu-upgrade", show_default=True, help="hf-jobs: the hardware.")
@click.option("--timeout", "jobs_timeout", default="6h", show_default=True, help="hf-jobs: the longest run.")
@click.option("--yes", is_flag=True, help="hf-jobs: really start the job, which costs money.")
@click.option("--stop-file", type=LEDGER, help="The run ends when this file appears; <ledger>.stop.")
@click.option("--keep-copy", type=LEDGER, help="Copy the ledger here every few minutes, and begin from it.")
@click.option(
    "--log", "log", type=click.Choice(("auto", "json", "none")), default="auto", help="auto: bar on a terminal."
)
@fail_on_option("The mildest verdict that exits with 1.")
@baseline_option("Findings that are accepted (docs/reports.md); a changed list makes everything due again.")
@ledger_option
@click.pass_context
@ends_with_a_sentence
def fleet(context: click.Context, /, **options: Any) -> None:
    """Scan many models; go on where an interrupted run was; scan again only what has changed.

    \b
    Examples:
      hubaudit fleet --author org --plan                    what it would take
      hubaudit fleet --author org --ledger org.sqlite       do it; run again for what is new
      hubaudit fleet --base org/base --generations 2        all descendants of a base
      hubaudit fleet --models ids.txt --workers 4           the ids in a file
      hubaudit fleet status --ledger org.sqlite             counts, the worst, the failures

    Ctrl-C, SIGTERM and a stop file let what is in flight finish. The exit code is 1 when a verdict on record is at or
    above --fail-on, else 3 when a repository could not be scanned, else 0; 4 when there was nothing to scan.
    """
    if context.invoked_subcommand is not None:
        return
    selection = _selection(options)
    if options["engine"] == "hf-jobs":
        _on_hf_jobs(options)
        return
    if options["plan_only"]:
        _show_plan(selection, options)
        return
    report = _run(selection, options, quiet=context.find_root().params.get("quiet", False))
    if options["log"] == "json":
        _log_end(report)
    _say(report, options["ledger"])
    raise SystemExit(int(_exit_code(report, options["fail_on"])))


for _command in COMMANDS:
    fleet.add_command(_command)


def _selection(options: dict[str, Any]) -> "Selection":
    """Return what was asked for.

    Raises:
        click.UsageError: nothing was, or more than one thing.
    """
    from pipelines.selection import Filters, Selection, since

    given = [name for name in ("author", "base", "search", "models") if options[name] is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --author, --base, --search and --models.")
    if not str(options[given[0]]).strip():  # to the Hub, no name means all of its models
        raise click.UsageError(f"--{given[0]} is empty; say whose models, of which base, or what to search for.")
    filtering = options["min_downloads"] or options["max_age"] or options["created_after"] or options["since"]
    if given == ["models"] and (filtering or options["gated"] != "any"):
        raise click.UsageError("a file names ids and nothing to filter them by; filter when you write it.")
    now = datetime.now(UTC)
    age = since(options["max_age"], None, now) if options["max_age"] else None
    created = since(options["created_after"], None, now) if options["created_after"] else None
    filters = Filters(
        min_downloads=options["min_downloads"],
        changed_after=age,
        created_after=created,
        gating=options["gated"],
        limit=options["limit"],
    )
    return Selection(
        author=options["author"],
        base=options["base"],
        search=options["search"],
        models=options["models"],
        generations=options["generations"],
        filters=filters,
    )


def _since(selection: "Selection", text: str | None, last: float | None) -> "Selection":
    """Narrow a selection to what has changed since a moment."""
    from pipelines.selection import since

    if text is None:
        return selection
    moment = since(text, datetime.fromtimestamp(last, UTC) if last is not None else None, datetime.now(UTC))
    after = selection.filters.changed_after
    return replace(selection, filters=replace(selection.filters, changed_after=max(moment, after or moment)))


def _resources(options: dict[str, Any]) -> "Resources":
    import os

    from pipelines.fleet import FleetPatience
    from pipelines.fleet_run import Resources

    ledger: Path = options["ledger"]
    return Resources(
        engine=options["engine"],
        workers=options["workers"] or os.cpu_count() or 1,
        threads=options["threads"],
        memory_bytes=options["worker_memory"],
        cache_folder=(options["cache"] or ledger.with_name(f"{ledger.name}.cache")) if options["cache_size"] else None,
        cache_bytes=options["cache_size"],
        share=options["quota_share"],
        job_seconds=options["job_timeout"],
        ray_address=options["ray_address"],
        patience=FleetPatience(wait_seconds=options["retry_wait"]),
    )


def _run(selection: "Selection", options: dict[str, Any], *, quiet: bool) -> "RunReport":
    from pipelines.fleet_run import run_fleet
    from pipelines.ledger import Ledger
    from pipelines.ledger_copy import KeptCopy, restore
    from scanner.errors import CouldNotConclude

    path: Path = options["ledger"]
    stop_file = stop_file_of(path, options["stop_file"])
    if stop_file.exists():
        raise CouldNotConclude(f"{stop_file} is there, which asks runs to stop; remove it first.")
    accepted = load_baseline(options["baseline"])
    with ExitStack() as stack:
        copy: Path | None = options["keep_copy"]
        if copy is not None:
            restore(copy, path)
        ledger: Ledger = stack.enter_context(Ledger(path))
        if copy is not None:
            stack.enter_context(KeptCopy(path, copy))
        observer = stack.enter_context(_observer(options["log"], quiet=quiet))
        return run_fleet(
            ledger,
            _since(selection, options["since"], ledger.last_start()),
            load_settings(),
            _resources(options),
            observer,
            base=options["against"],
            stop_file=stop_file,
            accepted=accepted,
        )


@contextmanager
def _observer(log: str, *, quiet: bool) -> Iterator["Observer"]:
    """Yield who watches the run: JSON lines, a bar on a terminal, or nobody; and the metrics, where there are any."""
    from pipelines.fleet_progress import Bar, JsonLog, Several, Silent
    from pipelines.metrics import FleetMetrics

    metrics = FleetMetrics()
    if log == "json":
        yield Several([JsonLog(), metrics])
    elif log == "auto" and sys.stderr.isatty() and not quiet:
        with Bar() as bar:
            yield Several([bar, metrics])
    else:
        yield Several([Silent(), metrics])


def _say(report: "RunReport", ledger: Path) -> None:
    """Print what the run came to: numbers on stdout, what was left out on stderr."""
    from reports.safe_text import clean_line

    for why, n in report.problems.counts.items():
        click.echo(f"hubaudit: {n} left out: {why}", err=True)
    for line in report.problems.named[:5]:
        click.echo(f"hubaudit:   {clean_line(line)}", err=True)
    if report.summary.stopped:
        click.echo(
            f"hubaudit: stopped ({clean_line(report.summary.stopped)}); run the same command again to go on.", err=True
        )
    counts, summary = report.counts, report.summary
    verdicts = ", ".join(f"{n} {name}" for name, n in report.verdicts.items()) or "no verdicts"
    click.echo(
        f"{counts.done} done, {counts.failed} failed, {counts.pending} pending of {counts.total}; {verdicts} "
        f"(now: {summary.scanned} scanned, {summary.unchanged} unchanged, {summary.failed} failed). Ledger: {ledger}"
    )


def _log_end(report: "RunReport") -> None:
    """Write the last line of the JSON log: what was done, and what it took."""
    from dataclasses import asdict

    facts = {**asdict(report.summary), "counts": asdict(report.counts), "verdicts": report.verdicts}
    line = {"time": round(time.time(), 3), "event": "finished", **facts, "left_out": report.problems.counts}
    click.echo(json.dumps(line), err=True)


def _exit_code(report: "RunReport", fail_on: str) -> Exit:
    """Return 1 for verdicts on record at or above ``fail_on``, 3 for what is open, 4 for an empty ledger, else 0.

    That nothing has changed since the last run is no reason to complain.
    """
    if report.counts.total == 0:
        return Exit.NOTHING_TO_COMPARE
    if any(report.verdicts.get(outcome) for outcome in FAILING[fail_on]):
        return Exit.FINDING
    open_ends = report.counts.failed or report.counts.pending or report.summary.stopped
    return Exit.COULD_NOT_CONCLUDE if open_ends else Exit.NOTHING_FOUND


def _show_plan(selection: "Selection", options: dict[str, Any]) -> None:
    """List the selection, add it up, and print what scanning it would take."""
    from pipelines.budget import Budget, OwnBudget
    from pipelines.fleet_plan import FleetPlan, plan_as_json, sample_sizes
    from pipelines.selection import Problems, select
    from scanner.hub import Hub

    settings = load_settings()
    budget = Budget(share=options["quota_share"])
    hub = Hub(
        settings.endpoint,
        settings.token,
        timeout_seconds=settings.timeout_seconds,
        max_wait_seconds=settings.patience_seconds,
        governor=OwnBudget(budget),
    )
    problems, plan = Problems(), FleetPlan()
    with ExitStack() as stack:
        reader = stack.enter_context(reading(options["ledger"])) if options["ledger"].is_file() else None
        narrowed = _since(selection, options["since"], reader.last_start() if reader else None)

        def counted() -> "Iterator[Wanted]":
            for one in select(narrowed, hub, problems):
                unchanged = reader is not None and one.listed is not None and reader.revision(one) == one.listed
                plan.add(one, unchanged=unchanged)
                if not unchanged:
                    yield one

        if selection.models is not None:
            sample_sizes(plan, counted(), hub)
        else:
            for _ in counted():
                pass
    rate = budget.rate("api")
    found = plan_as_json(plan, bytes_per_second=100 * MEGABYTE, api_per_second=rate)
    click.echo(json.dumps(found) if options["log"] == "json" else _plan_text(plan, found, problems))


def _plan_text(plan: "FleetPlan", found: dict[str, Any], problems: "Problems") -> str:
    from reports.numbers import byte_size, count, seconds

    lines = [
        f"{count(plan.repos)} repositories, {count(plan.unchanged)} of them unchanged since their last scan",
        f"{byte_size(plan.candidate_bytes)} of weights to read, from {count(plan.sized)} known sizes",
        f"{count(len(plan.families))} bases, about {byte_size(plan.base_bytes)}, read once each",
        f"{count(plan.api_requests)} API requests, {count(plan.file_requests)} file requests",
        f"about {seconds(float(found['seconds']))} at 100 MB/s, bound by {found['bottleneck']}",
    ]
    lines += [f"{count(n)} left out: {why}" for why, n in problems.counts.items()]
    return "\n".join(lines)


def _on_hf_jobs(options: dict[str, Any]) -> None:
    """Show the job that would run on the Hub; with --yes, start it."""
    from pipelines.engines.hf_jobs import plan_job, submit

    if options["baseline"] is not None:
        raise click.UsageError("a baseline file does not travel to hf-jobs; run this engine without --baseline.")
    settings = load_settings()
    ledger: Path = options["ledger"]
    plan = plan_job(
        _arguments(options),
        bucket=options["bucket"],
        name=ledger.name,
        flavor=options["flavor"],
        timeout=options["jobs_timeout"],
    )
    click.echo(plan.shown)
    if options["yes"]:
        click.echo(submit(plan, endpoint=settings.endpoint, token=settings.token))
    else:
        click.echo("hubaudit: dry run, nothing was started; add --yes to run this on the Hub.", err=True)


def _arguments(options: dict[str, Any]) -> list[str]:
    """Return the options of this command line that the job repeats there, where they differ from the defaults."""
    context = click.get_current_context()
    kept = {
        "author", "base", "generations", "search", "models", "min_downloads", "max_age", "created_after", "gated",
        "limit", "since", "against", "threads", "workers", "worker_memory", "cache_size", "quota_share", "job_timeout",
        "retry_wait", "fail_on",
    }  # fmt: skip
    arguments: list[str] = []
    for parameter in context.command.params:
        name, value = str(parameter.name), options.get(str(parameter.name))
        source = context.get_parameter_source(name)
        if name in kept and value is not None and source is not click.core.ParameterSource.DEFAULT:
            arguments += [parameter.opts[0], str(value)]
    return arguments
