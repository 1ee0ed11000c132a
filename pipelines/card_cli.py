"""The command `hubaudit card`: every claim of a model card against the evidence, without reading a weight."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.command import (
    BASELINE_HELP,
    FAILING,
    Exit,
    baseline_option,
    ends_with_a_sentence,
    fail_on_option,
    in_one_line,
    load_baseline,
    open_hub,
    template_dir_option,
)
from pipelines.output import check_targets, pair_outputs, report_options, write_reports

if TYPE_CHECKING:
    from pipelines.audit_repo import Audited


@click.command()
@click.argument("model")
@click.option("--base", metavar="BASE", help="Hold the card against this base instead of the declared one.")
@report_options
@fail_on_option("The mildest outcome that exits with 1; a contradicted claim is `review`.")
@baseline_option(BASELINE_HELP)
@template_dir_option
@click.pass_context
@ends_with_a_sentence
def card(
    context: click.Context,
    model: str,
    base: str | None,
    formats: tuple[str, ...],
    outputs: tuple[str, ...],
    fail_on: str,
    baseline: Path | None,
    template_dir: Path | None,
) -> None:
    """Hold the card of MODEL against the evidence: each claim is supported, contradicted or not checkable.

    Read are the card, the configuration, the file listing, the headers of the weight files, the base's card, and what
    lies around it: chat templates, tokenizer, code, programs, what pickles would import. No weight is, so this says
    nothing about them. What only weights can tell (descent from the base, what training moved) stays not checkable:
    `hubaudit scan` checks the same claims with the weights at hand.

    Exit codes: 0 claims were checked and none is contradicted (which is not a pass: no weights were read);
    1 a claim is contradicted, or a file asks for a look; 3 could not conclude (unreadable, gated, or no claim could be
    checked); 4 nothing to check (no card).

    \b
    Examples:
      hubaudit card org/model
      hubaudit card ./my-finetune --base org/base --format json --output card.json
      hubaudit card org/model --format markdown --output card.md --fail-on never
    """
    from pipelines.card_repo import card_repo
    from pipelines.progress import terminal_progress
    from reports.template_folder import templates_of

    wanted = pair_outputs(formats, outputs)
    check_targets(wanted)
    accepted = load_baseline(baseline)
    with templates_of(template_dir):
        with terminal_progress(quiet=context.find_root().params["quiet"]) as progress:
            audited = card_repo(model, base=base, hub=open_hub(), progress=progress, accepted=accepted)
        write_reports(audited.report, wanted)
    if audited.problem:
        click.echo(f"hubaudit: {in_one_line(audited.problem)}", err=True)
    raise SystemExit(int(exit_of_card(audited, fail_on)))


def exit_of_card(audited: "Audited", fail_on: str) -> Exit:
    """Return the exit code; see docs/decisions for why an outcome of ``inconclusive`` can exit with 0 here."""
    if audited.report.verdict.outcome in FAILING[fail_on]:
        return Exit.FINDING
    match audited.ending:
        case "nothing_to_compare":
            return Exit.NOTHING_TO_COMPARE
        case "could_not_conclude":
            return Exit.COULD_NOT_CONCLUDE
        case "concluded":
            checked = any(claim.status != "not_checkable" for claim in audited.report.card)
            return Exit.NOTHING_FOUND if checked else Exit.COULD_NOT_CONCLUDE
