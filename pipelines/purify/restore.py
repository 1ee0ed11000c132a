"""Puts back to the base what the scan flagged, without data: rows, dimensions, low-rank components, whole tensors.

Streams (``restoration``), so that memory stays flat whatever the checkpoint. What an edited *fine-tune* held before the
edit is not the base, so the log says for every tensor what was recovered:

``exact``    training did not reach this tensor (all else in it is the base's), so it is what it was, bit for bit
``row``      the base's bits; the rows around tell how likely training had left this row alone before the edit
``nearest``  what stood here before is nowhere recorded: the base's values, or the candidate's less the edit
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipelines.progress import Progress
from pipelines.purify.checkpoint import Checkpoint, open_checkpoint, panels_of, torch_dtypes
from pipelines.purify.components import Components, leading_components
from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult
from pipelines.purify.restoration import Restoration, bits_of
from pipelines.purify.restore_plan import Left, Repair, RestoreOptions, plan_restore, typical_leading_value
from scanner.errors import CouldNotConclude, NothingToCompare
from scanner.facts import collect
from scanner.hub import Hub
from scanner.paths import shown
from scanner.records import F64, PairSpec, RepoRef
from scanner.weights.dtypes import is_float
from scanner.weights.source import WeightSource

if TYPE_CHECKING:
    from torch import Tensor

MOST_COMPONENTS: Final = 8
"""Components looked at per matrix; edits of one fact or behaviour have one."""
_GAP: Final = 10.0
"""Without siblings: a component this many times the next one stands alone."""
_CONCENTRATED: Final = 0.9
"""Share of a singular vector's energy in one entry from which the component is that row or column."""
_UNTRAINED: Final = frozenset({"HA303", "HA304"})
"""Rules that show that training left the tensor alone."""
_NO_COMPONENT: Final = (
    "no low-rank component stands out; use a method that tunes on clean data, or --set whole_tensors=true"
)


def restore(job: PurifyJob) -> PurifyResult:
    """Put back what the job's report flags.

    Raises:
        NothingToCompare: the report flags nothing that the base could replace.
        CouldNotConclude: the base is not verified, or a side cannot be read.
        PurifyFailed: the job has no report or no base, or the report does not fit the weights.
    """
    options = job.options if isinstance(job.options, RestoreOptions) else RestoreOptions()
    if job.report is None:
        raise PurifyFailed("Restoring needs a scan of the model; give one with --report, or the base with --base.")
    repairs, left = plan_restore(job.report, options)
    if not repairs:
        raise NothingToCompare("The scan flagged nothing that the base could replace, so nothing was written.")
    checkpoint = open_checkpoint(job.candidate)
    base, pairs = _pairs(checkpoint, job)
    made: dict[str, Repair] = {}
    found: dict[str, tuple[Components, int]] = {}
    notes = list(left)
    for repair in repairs:
        spec = pairs.get(repair.tensor)
        reason = _unfit(repair, spec, checkpoint)
        settled: Repair | None = repair
        if spec is not None and reason is None and repair.form == "component":
            job.progress.stage("looking for the low-rank edit")
            components = _components(checkpoint, base, spec, job.seed, job.progress)
            count = _prominent(components, typical_leading_value(job.report, repair.tensor), repair, options)
            settled = _settled(repair, components, count, options)
            found |= {spec.candidate.name: (components, count)} if settled is repair else {}
        if spec is None or reason is not None or settled is None:
            notes.append(Left(rule=repair.rules[0], tensor=repair.tensor, why=reason or _NO_COMPONENT))
        else:
            made[spec.candidate.name] = settled
    if not made:
        raise NothingToCompare(f"Nothing could be put back: {notes[0].tensor or notes[0].rule}: {notes[0].why}.")
    by_stored = {spec.candidate.name: spec for spec in pairs.values()}
    edits = Restoration(checkpoint.table, by_stored, base, made, found)
    log = [_told(edits, checkpoint, name, job.progress) for name in made]
    return PurifyResult(
        edits=edits,
        chosen=f"Put back what the scan flagged in {len(made)} tensor{'s' if len(made) != 1 else ''}.",
        log={"restored": log, "left": [asdict(note) for note in notes], "options": asdict(options)},
    )


def _pairs(checkpoint: Checkpoint, job: PurifyJob) -> tuple[WeightSource, dict[str, PairSpec]]:
    """Open the base and pair the tensors as the scan did.

    Raises:
        CouldNotConclude: the weights do not bear out that the candidate descends from the base.
    """
    from scanner.alignment import align
    from scanner.lineage.sampling import sampling_seed
    from scanner.lineage.trace import trace
    from scanner.weights.opening import open_source

    facts = collect(RepoRef(path=str(job.require_base())), Hub())
    base, candidate = open_source(facts, None), open_source(checkpoint.facts, None)
    alignment = align(candidate.table, base.table, candidate_config=checkpoint.facts.config, base_config=facts.config)
    seed = sampling_seed(facts.ref, checkpoint.facts.ref, job.seed)
    traced = trace(alignment, base, candidate, seed=seed)
    if traced.status != "verified":
        raise CouldNotConclude(
            f"The weights do not bear out that this model descends from {shown(facts.ref.name)} ({traced.status}); "
            "name the true base with --base."
        )
    return base, {spec.name: spec for spec in traced.alignment.pairs}


def _unfit(repair: Repair, spec: PairSpec | None, checkpoint: Checkpoint) -> str | None:
    """Why a repair cannot be made; None when it can."""
    if spec is None or spec.candidate.name not in checkpoint.table:
        return "the base has no tensor that corresponds to it"
    meta = checkpoint.table[spec.candidate.name]
    if meta.dtype not in torch_dtypes() or not is_float(spec.base.dtype) or spec.base.scheme is not None:
        return f"it is stored as {meta.dtype} and the base as {spec.base.scheme or spec.base.dtype}"
    height, width = meta.rows_cols
    vector = len(meta.shape) < 2
    rows = [*repair.rows, *((row, row + 1) for row, _ in repair.dimensions)]
    columns = [*repair.columns, *((column, column + 1) for _, column in repair.dimensions)]
    if any(stop > height for _, stop in rows) or any(stop > width for _, stop in columns):
        return "the report names places outside of it, so it belongs to other weights"
    return "a vector has no low-rank component" if vector and repair.form == "component" else None


def _settled(repair: Repair, found: Components, count: int, options: RestoreOptions) -> Repair | None:
    """What becomes of a matrix that may hold a low-rank edit; None when nothing of it can be put back.

    A component that lies in a single row or column, or both, is no direction but a place: there the base's very
    values are better than a difference.
    """
    if not count:
        return Repair(tensor=repair.tensor, form="whole", rules=repair.rules) if options.whole_tensors else None
    left, right = np.square(found.left[:, 0]), np.square(found.right[0])
    row, column = int(left.argmax()), int(right.argmax())
    in_row, in_column = left[row] >= _CONCENTRATED, right[column] >= _CONCENTRATED
    if count > 1 or not (in_row or in_column):
        return repair
    return Repair(
        tensor=repair.tensor,
        form="parts",
        rules=repair.rules,
        rows=((row, row + 1),) if in_row and not in_column else (),
        columns=((column, column + 1),) if in_column and not in_row else (),
        dimensions=((row, column),) if in_row and in_column else (),
    )


def _components(
    checkpoint: Checkpoint, base: WeightSource, spec: PairSpec, seed: int, progress: Progress
) -> Components:
    """The leading components of candidate minus base over the rows that both have."""
    view = Restoration(checkpoint.table, {spec.candidate.name: spec}, base, {}, {})
    first, last = spec.rows

    def panels() -> Iterator[tuple[int, F64]]:
        for start, stop in panels_of(spec.candidate):
            low, high = max(start, first), min(stop, last)
            if low < high:
                ours = _wide(checkpoint.rows(spec.candidate.name, (low, high)).reshape(high - low, -1))
                progress.advance(high - first, last - first)
                yield low - first, ours - _wide(view.base_rows(spec.candidate.name, (low, high)))

    return leading_components(panels, last - first, spec.candidate.rows_cols[1], rank=MOST_COMPONENTS, seed=seed)


def _wide(tensor: "Tensor") -> F64:
    """The finite values as float64 ``[rows, cols]``, zero in the place of the others."""
    import torch

    wide: F64 = torch.nan_to_num(tensor.to(torch.float64), 0.0, 0.0, 0.0).numpy()
    return wide


def _prominent(found: Components, typical: float | None, repair: Repair, options: RestoreOptions) -> int:
    """How many leading components are an edit: those far beyond the same matrix in other layers."""
    values = found.values
    if typical is not None and typical > 0:
        count = int((values >= options.prominence * typical).sum())
    else:
        gaps = [k + 1 for k in range(len(values) - 1) if values[k] >= _GAP * max(values[k + 1], 1e-300)]
        count = gaps[0] if gaps else 0
    return max(count, 1) if repair.spectral else count


def _told(edits: Restoration, checkpoint: Checkpoint, name: str, progress: Progress) -> dict[str, Any]:
    """Measure what one repair does: dimensions changed, what still differs from the base, and which case it is."""
    import torch

    repair, spec, meta = edits.repairs[name], edits.pairs[name], checkpoint.table[name]
    progress.stage("measuring what is put back")
    changed = differing = still_rows = rows_seen = 0
    for start, stop in panels_of(meta):
        low, high = max(start, spec.rows[0]), min(stop, spec.rows[1])
        if low >= high:
            continue
        own = checkpoint.rows(name, (low, high)).reshape(high - low, -1)
        theirs = edits.base_rows(name, (low, high))
        new = edits.panel(name, (low, high), own)
        same = bits_of(theirs) == bits_of(own)
        changed += int((bits_of(new) != bits_of(own)).sum())
        differing += int((bits_of(new) != bits_of(theirs)).sum())
        still_rows += int(torch.all(same, dim=1).sum())
        rows_seen += high - low
    untrained = repair.form != "whole" or bool(_UNTRAINED & set(repair.rules))
    by_row = repair.form == "parts" and bool(repair.rows) and meta.rows_cols[0] > 1
    told: dict[str, Any] = {
        "tensor": name,
        "form": repair.form,
        "rules": list(repair.rules),
        "case": "exact" if not differing and untrained else "row" if by_row else "nearest",
        "dimensions_changed": changed,
        "dimensions_still_unlike_base": differing,
    }
    if repair.rows:
        told["rows"] = [list(run) for run in repair.rows]
        told["tokens"] = [{"id": token.id, "text": token.text} for token in repair.tokens]
        told["rows_that_never_moved"] = {"count": still_rows, "of": rows_seen}
    if repair.columns:
        told["columns"] = [list(run) for run in repair.columns]
    if repair.dimensions:
        told["dimensions"] = [list(place) for place in repair.dimensions]
    if name in edits.components:
        found, count = edits.components[name]
        told["singular_values"] = [float(value) for value in found.values]
        told["components_removed"] = count
        told["share_removed"] = float((found.values[:count] ** 2).sum() / found.energy) if found.energy > 0 else 0.0
    return told
