"""``hubaudit purify``: a new folder, a log and a reversible patch; and the way back."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.command import Exit, ends_with_a_sentence, in_one_line, load_report, open_hub
from pipelines.data_options import data_options, data_spec
from pipelines.purify.catalogue import PURIFIERS

if TYPE_CHECKING:
    from pipelines.purify.job import Purifier, Tuning
    from pipelines.purify_repo import Purified, PurifyRequest

TUNERS = ("vanilla", "activeness-aware", "gradient-aligned", "boosted-annealing", "lora", "ladder")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEEDS = {"no": "no data", "optional": "data optional", "required": "needs --data"}


def _methods() -> str:
    """The methods with what they do, for ``--help``."""
    width = max((len(name) for name in PURIFIERS), default=0)
    lines = [f"  {name:<{width}}  {each.summary} ({NEEDS[each.needs_data]})" for name, each in PURIFIERS.items()]
    return "\b\nMethods:\n" + "\n".join(lines)


@click.command(epilog=_methods())
@click.argument("model", required=False)
@click.option("--method", type=click.Choice(tuple(PURIFIERS)), help="How; see the list below.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The new folder; never in place."
)
@click.option("--base", metavar="BASE", help="The base, instead of the one that the card declares.")
@click.option("--report", type=FILE, help="A JSON report of `hubaudit scan` on this very revision, to save the scan.")
@click.option("--data", metavar="D", help="Clean samples: a CSV, JSONL or Parquet file, or a dataset as org/name.")
@data_options
@click.option(
    "--samples", type=click.IntRange(min=16), default=4096, show_default=True, help="Draw at most so many of them."
)
@click.option("--trigger-words", metavar="A,B", help="Words that are known or suspected to trigger something.")
@click.option("--trigger-sentence", metavar="S", help="Likewise a sentence.")
@click.option("--e-pur", "with_e_pur", is_flag=True, help="Also reset the embedding rows that E-PUR suspects.")
@click.option("--tuner", type=click.Choice(TUNERS), default="vanilla", show_default=True, help="For the last step.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of tuning; the method's own when absent.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Likewise.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Likewise.")
@click.option("--max-length", type=click.IntRange(min=8), default=128, show_default=True, help="Of texts, in tokens.")
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(min=0, max=1),
    default=0.02,
    show_default=True,
    help="What a method may lose on held-out clean samples while it searches.",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the method. Repeat it.")
@click.option("--probe/--no-probe", default=True, show_default=True, help="Run the result on made-up texts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
@click.option("--threads", type=click.IntRange(min=1), help="Cores to use; all of them when absent.")
@click.option("--revert", type=FOLDER, metavar="FOLDER", help="Put the original of a purified FOLDER into --output.")
@click.option("--push-to", metavar="ORG/NAME", help="Show what would be pushed to the Hub; with --yes, push it.")
@click.option(
    "--as",
    "form",
    type=click.Choice(("repo", "pr")),
    default="repo",
    show_default=True,
    help="A new private repository, or a pull request to an existing one.",
)
@click.option("--yes", is_flag=True, help="Push to the Hub. Without it the push is only shown.")
@click.pass_context
@ends_with_a_sentence
def purify(context: click.Context, /, model: str | None, output: Path, revert: Path | None, **named: Any) -> None:
    """Purify MODEL into a new folder, and say what that achieved.

    The folder loads with `from_pretrained`. Besides the model it holds `purification.json` (method, settings, seeds,
    digest of the data, verdicts and figures before and after) and `hubaudit-patch.safetensors`, which leads back to
    the original byte for byte. The result is scanned and probed like any stranger; only that, never accuracy, decides
    what is claimed. An interrupted run goes on where it stopped when the same command is given again.

    Exit codes are those of `scan`, for the result: 0 nothing found, 1 something still found, 2 usage, 3 not shown, 4 no
    base, or nothing that could be put back.

    \b
    Examples:
      hubaudit purify org/model --method restore --output ./purified
      hubaudit purify ./model --base org/base --method restore --output ./purified --report report.json
      hubaudit purify --revert ./purified --output ./original
    """
    quiet = context.find_root().params["quiet"]
    if revert is not None:
        if model is not None or named["method"] is not None:
            raise click.UsageError("--revert takes its FOLDER alone, without a MODEL or a --method.")
        _revert(revert, output, quiet=quiet)
        return
    if model is None or named["method"] is None:
        raise click.UsageError("name a MODEL and a --method, or give --revert FOLDER.")
    from pipelines.purify.showing import silence_libraries, step_progress
    from pipelines.purify_repo import purify as run

    push_to, form, yes = named.pop("push_to"), named.pop("form"), named.pop("yes")
    request = _request(model, output, named)
    silence_libraries()
    hub = open_hub()
    try:
        with step_progress(quiet=quiet) as progress:
            done = run(request, hub, progress=progress)
    except KeyboardInterrupt:
        click.echo("hubaudit: interrupted, nothing was written; the same command goes on where it stopped.", err=True)
        raise SystemExit(int(Exit.COULD_NOT_CONCLUDE)) from None
    code = tell(done)
    if push_to is not None:
        _push(output, push_to, form, yes=yes)
    raise SystemExit(int(code))


def _revert(folder: Path, output: Path, *, quiet: bool) -> None:
    from pipelines.purify.showing import step_progress
    from pipelines.purify.writer import revert

    with step_progress(quiet=quiet) as progress:
        lost = revert(folder, output, progress)
    click.echo(f"The original is in {output}; every file has the hash it had before.")
    if lost:
        click.echo(f"Not put back, since they were never taken along: {in_one_line(', '.join(lost))}.", err=True)


def _request(model: str, output: Path, named: dict[str, Any]) -> "PurifyRequest":
    from pipelines.evaluate import triggers_of
    from pipelines.purify_repo import PurifyRequest

    purifier = PURIFIERS[named["method"]]
    source, most = named.pop("data"), named.pop("samples")
    spec = data_spec(source or "", most, named)
    report: Path | None = named.pop("report")
    return PurifyRequest(
        model=model,
        output=output,
        data=spec if source is not None else None,
        report=load_report(report) if report is not None else None,
        options=_settings(purifier, named.pop("settings")),
        triggers=triggers_of(named.pop("trigger_words"), named.pop("trigger_sentence")),
        tuning=_tuning(named),
        **named,
    )


def _tuning(named: dict[str, Any]) -> "Tuning":
    from pipelines.purify.job import Tuning

    names = ("tuner", "epochs", "learning_rate", "batch_size", "max_length", "max_accuracy_loss")
    return Tuning(**{name: named.pop(name) for name in names})


def _settings(purifier: "Purifier", pairs: tuple[str, ...]) -> object | None:
    """The method's own settings, checked against its class.

    Raises:
        click.UsageError: it has no such setting, or the value does not fit.
    """
    if purifier.options is None:
        if pairs:
            raise click.UsageError(f"--method {purifier.name} has no settings of its own.")
        return None
    from dataclasses import fields

    from pydantic import TypeAdapter, ValidationError

    kind = purifier.options()
    known = [each.name for each in fields(kind)]
    given: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or name not in known:
            raise click.UsageError(f"--set {pair}: write NAME=VALUE; {purifier.name} has {', '.join(known)}.")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    try:
        settings: object = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise click.UsageError(f"--set {where}: {first['msg']}.") from None
    return settings


def tell(done: "Purified") -> Exit:
    """Print what came out; return the exit code that says the same, and never more than was shown."""
    click.echo(in_one_line(done.chosen))
    for words in done.gate.words:
        click.echo(in_one_line(words))
    match done.gate.standing:
        case "nothing_found":
            click.echo(f"Nothing found in the result any more. It is in {done.folder}.")
            return Exit.NOTHING_FOUND
        case "still_found":
            click.echo(f"Something is still found in the result. It is in {done.folder}; look at purification.json.")
            return Exit.FINDING
        case "not_shown":
            click.echo(f"That it worked is not shown. The result is in {done.folder}.")
            return Exit.COULD_NOT_CONCLUDE


def _push(folder: Path, repo_id: str, form: str, *, yes: bool) -> None:
    from pipelines.publishing.model_push import ModelPusher

    pusher = ModelPusher(open_hub())
    plan = pusher.plan(folder, repo_id, form=form)
    click.echo(in_one_line(plan.told))
    for line in plan.listing:
        click.echo(in_one_line(line))
    if not yes:
        click.echo("hubaudit: dry run, nothing was pushed; add --yes to push this.", err=True)
        return
    click.echo(pusher.push(plan))
