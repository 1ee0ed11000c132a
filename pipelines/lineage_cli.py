"""The command `hubaudit lineage`: who is the parent, on what grounds, and who comes next."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.command import Exit, ends_with_a_sentence, open_hub

if TYPE_CHECKING:
    from pipelines.lineage import Parentage

FORMATS = ("table", "json")
MAX_CANDIDATES = 200
MAX_FILE_BYTES = 1 << 20


@click.command()
@click.argument("model")
@click.option(
    "--candidates",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of possible parents, one a line (`#` begins a comment); without it, the Hub is searched.",
)
@click.option("--base", metavar="BASE", help="Ask about this base instead of the declared one.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print.")
@click.option("--output", metavar="PATH", default="-", show_default=True, help="Where; - is stdout.")
@click.pass_context
@ends_with_a_sentence
def lineage(
    context: click.Context, model: str, candidates: Path | None, base: str | None, form: str, output: str
) -> None:
    """Say who the parent of MODEL is: what is declared, what the weights show, and the runner-up.

    Possible parents are the declared bases and their family, what --candidates lists, or else models of the same
    architecture and size on the Hub. Tensor tables are read first, a few rows of those that fit; nothing else.

    Exit codes: 0 the declared base is verified and nearest, or one was found where none is declared; 1 the weights
    say otherwise; 3 could not conclude; 4 nothing to compare.

    \b
    Examples:
      hubaudit lineage org/model
      hubaudit lineage org/model --candidates parents.txt --format json
    """
    from pipelines.lineage import find_parent
    from pipelines.output import write_document
    from pipelines.progress import terminal_progress

    if output != "-" and not Path(output).parent.is_dir():
        raise click.UsageError(f"--output {output}: the folder {Path(output).parent} does not exist.")
    names = read_candidates(candidates) if candidates else None
    with terminal_progress(quiet=context.find_root().params["quiet"]) as progress:
        found = find_parent(model, hub=open_hub(), base=base, names=names, progress=progress)
    write_document(json.dumps(as_json(found), indent=2) + "\n" if form == "json" else as_table(found), output)
    raise SystemExit(int(exit_of_parentage(found)))


def read_candidates(path: Path) -> list[str]:
    """Return the names in a file, comments and blank lines left out, each once.

    Raises:
        click.UsageError: it holds none, or too many.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise click.UsageError(
            f"--candidates {path}: the file is larger than 1 MiB; list at most {MAX_CANDIDATES} models."
        )
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        raise click.UsageError(f"--candidates {path}: no model is listed in it.")
    if len(names) > MAX_CANDIDATES:
        raise click.UsageError(f"--candidates {path}: {len(names)} models are listed; list at most {MAX_CANDIDATES}.")
    return names


def exit_of_parentage(found: "Parentage") -> Exit:
    """Return the exit code: what the weights say of the declared base, or whether any parent was found."""
    best, declared = found.ranking.best, found.declared
    if not found.ranking.ranked:
        return Exit.NOTHING_TO_COMPARE if not found.ranking.left_out else Exit.COULD_NOT_CONCLUDE
    if declared is None:
        return Exit.NOTHING_FOUND if best else Exit.COULD_NOT_CONCLUDE
    if declared.status == "contradicted" or declared.ref in found.ranking.beaten:
        return Exit.FINDING
    return Exit.NOTHING_FOUND if declared.status == "verified" else Exit.COULD_NOT_CONCLUDE


def as_json(found: "Parentage") -> dict[str, Any]:
    """The answer as plain values; names as in the report."""
    return {
        "subject": str(found.subject),
        "declared": str(found.declared.ref) if found.declared else None,
        "status": found.declared.status if found.declared else "unverified",
        "nearest": str(found.ranking.best.ref) if found.ranking.best else None,
        "runner_up": str(found.ranking.runner_up.ref) if found.ranking.runner_up else None,
        "relation": found.relation,
        "conflicts": list(found.conflicts),
        "bytes_read": found.ranking.bytes_read,
        "requests": found.requests,
        "claims": [{"source": c.source, "value": c.value} for c in found.claims],
        "candidates": [
            {
                "model": str(r.ref),
                "status": r.status,
                "parameters_with_partner": r.table_share,
                "row_cosine": r.row_cosine,
                "relative_drift": r.relative_drift,
                "log10_p": r.log10_p,
                "note": r.note,
            }
            for r in found.ranking.ranked
        ],
        "checks": [
            {
                "name": check.name,
                "outcome": check.outcome,
                "measurements": [{"name": m.name, "value": m.value, "unit": m.unit} for m in check.measurements],
                "note": check.note,
            }
            for check in found.checks
        ],
        "skipped": [{"what": skip.what, "why": skip.why} for skip in found.skips],
    }


def as_table(found: "Parentage") -> str:
    """The answer for a terminal, free of control characters."""
    from reports.numbers import byte_size
    from reports.safe_text import clean_line

    lines = [f"{found.subject}: {found.sentence}", ""]
    for place, ranked in enumerate(found.ranking.ranked, start=1):
        mark = "declared" if found.declared is not None and ranked.ref == found.declared.ref else ""
        lines.append(f"{place:>3}  {ranked}  {mark}".rstrip())
    runner_up = found.ranking.runner_up
    lines += ["", f"runner-up: {runner_up.ref if runner_up else 'none, nothing else was compared'}"]
    lines += [f"declared: {_declared(found)}"]
    lines += [f"conflict: {conflict}" for conflict in found.conflicts]
    lines += [f"cost: {byte_size(found.ranking.bytes_read)} of weights read, {found.requests:,} requests", ""]
    lines += [f"{check.name}: {check.outcome}. {check.note}" for check in found.checks]
    lines += [f"not compared: {skip.what}: {skip.why}" for skip in found.skips]
    return "\n".join(clean_line(line, limit=500) if line else "" for line in lines).rstrip() + "\n"


def _declared(found: "Parentage") -> str:
    """Each declared base with the places that name it, and the declared relation."""
    from scanner.lineage.claims import ADAPTER, API, CARD, MERGE, NAME_OR_PATH

    places: dict[str, list[str]] = {}
    for claim in found.claims:
        if claim.source in {ADAPTER, API, CARD, MERGE, NAME_OR_PATH}:
            places.setdefault(claim.value, []).append(claim.source)
    named = [f"{value} ({', '.join(dict.fromkeys(sources))})" for value, sources in places.items()]
    return f"{'; '.join(named) or 'no base'}; relation {found.relation}"
