"""Brings two checkpoints that store the same matrices in other pieces to one partition, lazily.

Names and shapes propose what a fused, stacked or turned tensor is made of (``scanner.partition``); a few rows of both
sides then say in which of the possible layouts. What no layout explains stays as it is, and is a skip of the alignment.
The finer partition is used on both sides, since a stack of experts says less than its experts. A part goes by the name
that it has on the side that stores it as a part.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.errors import CouldNotConclude
from scanner.lineage.rows import unit_rows
from scanner.lineage.sampling import MIN_COLUMNS, read_values
from scanner.partition import TURNED, Group, Work, propose, propose_turned
from scanner.records import F64, RepoFacts, Skip, TensorMeta
from scanner.renaming import pair_names
from scanner.weights.derived import DerivedSource
from scanner.weights.opening import named_as
from scanner.weights.rearranged import Part
from scanner.weights.source import BlockRequest, WeightSource

FITTING_COSINE = 0.5**0.5
"""As ``KEPT_COSINE``: half of a row's energy is shared."""
FITTING_MARGIN = 0.2
"""By how much the best layout must exceed every other one."""
SAMPLED_ROWS = 8
SAMPLED_PARTS = 4
SAMPLED_GROUPS = 2
_NOTE = "stored in one piece on one side and in parts on the other; compared part by part, where the values lie"
_UNSEEN = "not looked for in parts: more tensors are stored in other pieces than are looked through"
_TURNED = "stored with its axes exchanged; compared turned"

Config = Mapping[str, Any] | None


@dataclass(slots=True)
class _Remade:
    """What becomes of one side."""

    source: WeightSource
    gone: set[str]
    made: list[Part]

    def result(self, notes: tuple[Skip, ...] = ()) -> WeightSource:
        if not self.made and not notes:
            return self.source
        kept = [name for name in self.source.table if name not in self.gone]
        return DerivedSource(self.source, recipes=self.made, kept=kept, skips=notes)


def in_step(
    candidate: WeightSource, base: WeightSource, candidate_facts: RepoFacts, base_facts: RepoFacts
) -> tuple[WeightSource, WeightSource]:
    """Return both sources under one set of names and in one partition; see ``named_as`` and ``in_same_parts``.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    candidate = named_as(candidate, base)
    base = named_as(base, candidate)
    return in_same_parts(candidate, base, candidate_facts, base_facts)


def all_in_step(
    candidate: WeightSource,
    others: Sequence[WeightSource],
    candidate_facts: RepoFacts,
    others_facts: Sequence[RepoFacts],
) -> tuple[WeightSource, list[WeightSource]]:
    """Return the candidate and several others under one set of names and in one partition: the finest of all.

    Args:
        candidate: open; closing is left to the caller, here as for the others.
        others: what the candidate is compared with.
        candidate_facts: for the number of heads.
        others_facts: the same, in the order of ``others``.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    for other, facts in zip(others, others_facts, strict=True):
        candidate, _ = in_step(candidate, other, candidate_facts, facts)
    found = []
    for other, facts in zip(others, others_facts, strict=True):
        _, fitted = in_step(candidate, other, candidate_facts, facts)
        found.append(fitted)
    return candidate, found


def in_same_parts(
    candidate: WeightSource, base: WeightSource, candidate_facts: RepoFacts, base_facts: RepoFacts
) -> tuple[WeightSource, WeightSource]:
    """Return both sources, in parts where the other side has parts. Never raises; closing them closes the given ones.

    Args:
        candidate: the weights in question, open.
        base: the declared parent's, open.
        candidate_facts: for the number of heads.
        base_facts: the same.
    """
    configs = [candidate_facts.config, base_facts.config]
    ours, theirs = _left_over(candidate, base)
    sides = (_Remade(candidate, set(), []), _Remade(base, set(), []))
    split: dict[str, list[str]] = defaultdict(list)
    work = Work()
    for whole, other, fused, parts in ((sides[0], base, ours, theirs), (sides[1], candidate, theirs, ours)):
        for group, layout in _fitting(propose(fused, parts, configs, work), whole.source, other):
            split[_NOTE].append(group.fused.name)
            _add(whole, group, layout)
            for used in (group.fused.name, *(part.name for part in group.parts)):
                ours.pop(used, None)
                theirs.pop(used, None)
    for group, layout in _fitting(propose_turned(candidate.table, base.table), base, candidate):
        if layout != "as it is":
            split[_TURNED].append(group.fused.name)
            _add(sides[1], group, layout)
    notes = tuple(Skip(what=_named(names), why=why) for why, names in split.items())
    if work.unseen:
        notes = (*notes, Skip(what=f"{work.unseen:,} tensors", why=_UNSEEN))
    at_base = bool(sides[1].made) and not sides[0].made
    return sides[0].result(() if at_base else notes), sides[1].result(notes if at_base else ())


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _add(side: _Remade, group: Group, layout: str) -> None:
    try:
        made = [
            Part(group.fused, part.name, part.shape, place)
            for part, place in zip(group.parts, group.layouts[layout], strict=True)
        ]
    except ValueError:  # too large to be turned: it stays a skip of the alignment
        return
    side.gone.add(group.fused.name)
    side.made += made


def _left_over(candidate: WeightSource, base: WeightSource) -> tuple[dict[str, TensorMeta], dict[str, TensorMeta]]:
    """Tensors whose names pair with none of the other side, or only with one of another shape."""
    ours, theirs = candidate.table, base.table
    pairs = pair_names(ours, theirs, lambda name, other: ours[name].shape == theirs[other].shape)
    paired = {name for name, other in pairs.items() if ours[name].shape[1:] == theirs[other].shape[1:]}
    taken = {pairs[name] for name in paired}
    return (
        {name: meta for name, meta in ours.items() if name not in paired},
        {name: meta for name, meta in theirs.items() if name not in taken},
    )


def _fitting(groups: Sequence[Group], whole: WeightSource, parts: WeightSource) -> list[tuple[Group, str]]:
    """Every group with the layout of its kind; kinds of which no layout, or more than one, fits are left out."""
    kinds: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        kinds[group.kind].append(group)
    chosen = []
    for kind in kinds.values():
        matrices = [group for group in kind if len(group.parts[0].shape) > 1] or kind
        looked_at = matrices if len(matrices) <= SAMPLED_GROUPS else [matrices[0], matrices[-1]]
        try:
            found = {_layout_of(group, whole, parts) for group in looked_at}
        except CouldNotConclude:
            continue
        label = found.pop()
        if found or label is None:
            continue
        chosen += [(group, own) for group in kind if (own := _own_label(group, label)) is not None]
    return chosen


def _own_label(group: Group, label: str) -> str | None:
    """The group's name of a layout; vectors, which cannot be turned, lie as the turned matrices beside them."""
    straight = label.removesuffix(TURNED)
    return label if label in group.layouts else straight if straight in group.layouts else None


def _layout_of(group: Group, whole: WeightSource, parts: WeightSource) -> str | None:
    """The layout whose rows are the parts' rows; None when none is, or another one fits nearly as well.

    Raises:
        CouldNotConclude: a side cannot be read.
    """
    if group.parts[0].rows_cols[1] < MIN_COLUMNS:
        return None
    picks = _sampled(group)
    runs = {i: _middle(group.parts[i].rows_cols[0]) for i in picks}
    there = read_values(parts, [BlockRequest(name=group.parts[i].name, rows=runs[i]) for i in picks])
    recipes = {}
    for label, places in group.layouts.items():
        try:
            recipes[label] = [Part(group.fused, f"{label}\x1f{i}", group.parts[i].shape, places[i]) for i in picks]
        except ValueError:
            return None
    source = DerivedSource(whole, recipes=[part for made in recipes.values() for part in made], kept=())
    scores: dict[str, float] = {}
    for label, made in recipes.items():
        requests = [BlockRequest(name=part.meta.name, rows=runs[i]) for part, i in zip(made, picks, strict=True)]
        scores[label] = _score(read_values(source, requests), there)
    best = max(scores, key=lambda label: scores[label])
    rest = max((score for label, score in scores.items() if label != best), default=-1.0)
    return best if scores[best] >= FITTING_COSINE and scores[best] - rest >= FITTING_MARGIN else None


def _sampled(group: Group) -> list[int]:
    """Which parts to look at: those of the first expert of a stack, and the last part."""
    count = len(group.parts)
    return list(range(count)) if count <= SAMPLED_PARTS else [*range(SAMPLED_PARTS - 1), count - 1]


def _middle(rows: int) -> tuple[int, int]:
    start = rows // 3
    return start, min(rows, start + SAMPLED_ROWS)


def _score(ours: Sequence[F64], theirs: Sequence[F64]) -> float:
    """Median cosine of rows of equal index, centred; for a part that does not fit at all, its own median counts."""
    medians = []
    for one, other in zip(ours, theirs, strict=True):
        if len(one) > 1:
            left, right = (unit_rows(np.nan_to_num(side, posinf=0.0, neginf=0.0)) for side in (one, other))
            medians.append(float(np.median(np.sum(left * right, axis=1))))
        else:
            with np.errstate(all="ignore"):
                medians.append(float(np.nan_to_num(np.corrcoef(one[0], other[0])[0, 1])))
    return min(medians)
