"""``hubaudit evaluate``: clean accuracy and attack success of a classifier."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pipelines.command import ends_with_a_sentence, in_one_line, open_hub
from pipelines.data_options import data_options, data_spec
from pipelines.output import STDOUT, check_targets, write_document

if TYPE_CHECKING:
    from pipelines.evaluate import Evaluation
    from pipelines.purify.intervals import Rate


@click.command()
@click.argument("model")
@click.option(
    "--data", required=True, metavar="D", help="Labelled samples: CSV, JSONL, Parquet, or a dataset as org/name."
)
@data_options
@click.option(
    "--samples", type=click.IntRange(min=16), default=2000, show_default=True, help="Draw at most so many of them."
)
@click.option("--trigger-words", metavar="A,B", help="One of these, at random, is inserted at a random place.")
@click.option("--trigger-sentence", metavar="S", help="Likewise a sentence.")
@click.option("--target", metavar="CLASS", help="The class that a trigger is to lead to; every class when absent.")
@click.option("--max-length", type=click.IntRange(min=8), default=128, show_default=True, help="Of texts, in tokens.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draw and the places.")
@click.option("--threads", type=click.IntRange(min=1), help="Cores to use; all of them when absent.")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
@click.option("--output", default=STDOUT, metavar="PATH", help="Where to; - is stdout.")
@click.pass_context
@ends_with_a_sentence
def evaluate(context: click.Context, /, model: str, data: str, samples: int, **named: Any) -> None:
    """Measure clean accuracy (ACC) of MODEL, and with a trigger its attack success rate (ASR).

    ASR is the share of samples of other classes that get the target class once the trigger is inserted. A model errs
    towards that class without any trigger too; that floor is printed beside, and the excess over it is what counts.
    Intervals hold with 95 %: exact ones for shares, Newcombe's paired one for the excess.

    \b
    Examples:
      hubaudit evaluate org/model --data test.csv
      hubaudit evaluate org/model --data stanfordnlp/sst2 --data-split validation --trigger-words cf,mn
    """
    import torch

    from pipelines import evaluate as measuring
    from pipelines.purify.data import load_samples
    from pipelines.purify.showing import silence_libraries, step_progress
    from pipelines.settings import load_settings

    form, output = named.pop("form"), named.pop("output")
    check_targets([(form, output)])
    triggers = measuring.triggers_of(named.pop("trigger_words"), named.pop("trigger_sentence"))
    spec = data_spec(data, samples, named)
    if named["threads"] is not None:
        torch.set_num_threads(named["threads"])
    silence_libraries()
    with (
        step_progress(quiet=context.find_root().params["quiet"]) as progress,
        measuring.local_model(model, open_hub(), progress) as local,
    ):
        progress.stage("reading samples")
        found = load_samples(spec, local.config, local.kind, seed=named["seed"], token=load_settings().token)
        done = measuring.evaluate(
            local.folder,
            local.kind,
            found.inputs,
            found.labels,
            found.class_names,
            triggers=triggers,
            target=named["target"],
            seed=named["seed"],
            max_length=named["max_length"],
            progress=progress,
        )
    source = {
        "source": found.source,
        "sha256": found.digest,
        "samples": len(found.inputs),
        "rows_read": found.rows_read,
    }
    told = {"model": local.name, "data": source, **asdict(done)}
    write_document(json.dumps(told, indent=2) + "\n" if form == "json" else _table(local.name, source, done), output)


def _table(name: str, source: dict[str, Any], done: "Evaluation") -> str:
    """The figures for people."""
    lines = [
        f"{in_one_line(name)} on {source['samples']} samples of {in_one_line(source['source'])}",
        f"ACC  {_share(done.accuracy)}",
        *(f"  {in_one_line(label)}: {_share(share)}" for label, share in done.per_class.items()),
    ]
    for attack in done.attacks:
        low, high = 100 * attack.excess.low, 100 * attack.excess.high
        lines += [
            f"Trigger {in_one_line(attack.trigger)!r} towards {in_one_line(attack.target)}:",
            f"  ASR     {_share(attack.success)}",
            f"  floor   {_share(attack.floor)}",
            f"  excess  {100 * attack.excess.value:.1f} points (95 %: {low:.1f} to {high:.1f})",
        ]
    return "\n".join(lines) + "\n"


def _share(share: "Rate") -> str:
    return (
        f"{100 * share.value:.1f} % ({share.count} of {share.n}; 95 %: {100 * share.low:.1f} to {100 * share.high:.1f})"
    )
