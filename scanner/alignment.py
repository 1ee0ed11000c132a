"""Pairs the tensors of two checkpoints and says of everything unpaired why it is not compared.

Names pair directly, then by prefix and old spelling (``scanner.renaming``), then by the library's own conversions
(``scanner.conversions``, only when body tensors are left on both sides). What is left is tied to another tensor,
a head that one side lacks, a constant, or simply unknown; each is a skip. A *body* tensor is one that a model cannot
do without: not a head, not a pooler, not a constant.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scanner.conversions import Canonical, canonical_names
from scanner.records import Alignment, PairSpec, Role, Rows, Skip, TensorMeta
from scanner.renaming import pair_names
from scanner.roles import is_constant, is_head_part, layer_of, role_of
from scanner.weights.dtypes import is_float

Table = Mapping[str, TensorMeta]
Config = Mapping[str, Any] | None
Canonicalise = Callable[[Sequence[tuple[Iterable[str], Config]]], tuple[Canonical, ...]]

MAX_SKIPS_PER_REASON = 20
"""Tensors named one by one for each reason; the rest is one line with their number."""
_RESIZABLE: frozenset[Role] = frozenset({"embedding", "unembedding", "position"})
_HEAD: frozenset[Role] = frozenset({"head", "unembedding", "pooler"})
_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration", "ForPreTraining")
"""Endings of the classes that have an output embedding, tied or not."""

_CONSTANT = "constant that the model computes for itself"
_EMPTY = "holds no values"
_NO_BASE = "the base has no tensor that corresponds to it"
_NO_CANDIDATE = "the candidate has no tensor that corresponds to it"
_HEAD_ONLY_CANDIDATE = "task head, the base has none"
_HEAD_ONLY_BASE = "head of the base, the candidate has none"
_SCALED = "stored with scales in a tensor of their own, which are not applied yet"
_FUSED = "stored fused on one side and in parts on the other, which is not compared yet"


@dataclass(frozen=True, slots=True)
class _Side:
    """One checkpoint: its table, its configuration and the role of every tensor."""

    table: Table
    config: Config
    roles: Mapping[str, Role]

    @classmethod
    def of(cls, table: Table, config: Config) -> "_Side":
        return cls(table, config, {name: role_of(name, meta.shape, config) for name, meta in table.items()})

    def is_body(self, name: str) -> bool:
        """True for the tensors that carry the network itself."""
        meta = self.table[name]
        return not is_constant(name, meta.shape) and not self.is_head(name) and is_float(meta.dtype)

    def is_head(self, name: str) -> bool:
        """True for what turns the network's states into an answer, norms and poolers included."""
        return self.roles[name] in _HEAD or is_head_part(name)

    def has_scales(self, name: str) -> bool:
        """True when the stored numbers mean little without the scales beside them (8-bit floats in blocks)."""
        module, dot, last = name.rpartition(".")
        places = (f"{name}_scale", f"{name}_scale_inv", f"{name}.scale", f"{module}{dot}scale_{last}", f"{name}.absmax")
        return any(place in self.table for place in places)

    def generates(self) -> bool:
        """True when the configuration names a class with an output embedding."""
        names = (self.config or {}).get("architectures")
        return isinstance(names, list) and any(isinstance(n, str) and n.endswith(_GENERATIVE) for n in names[:5])

    def untied(self) -> bool:
        """True when the configuration says that input and output embeddings are separate."""
        return (self.config or {}).get("tie_word_embeddings") is False

    def token_table(self) -> str | None:
        """The first input embedding of tokens, shared ones before those of a part."""
        names = [name for name, role in self.roles.items() if role == "embedding"]
        return min(names, key=lambda name: name.count("."), default=None)


def align(
    candidate: Table,
    base: Table,
    *,
    candidate_config: Config = None,
    base_config: Config = None,
    canonicalise: Canonicalise = canonical_names,
) -> Alignment:
    """Pair the tensors of two checkpoints, in the candidate's file order.

    A pair has equal shapes, except that tables of tokens and positions may differ in their number of rows: the
    common rows are compared, ``added_rows`` holds those that only the candidate has. ``parameters_total`` counts all
    elements of the candidate, heads and integers included, constants that a model computes for itself left out.

    Args:
        candidate: tensors of the fine-tune by name.
        base: tensors of the base by name.
        candidate_config: parsed config.json of the fine-tune, for ties and conversions.
        base_config: the same of the base.
        canonicalise: the library's own names for checkpoints (replaceable for tests).
    """
    ours, theirs = _Side.of(candidate, candidate_config), _Side.of(base, base_config)
    pairs = pair_names(candidate, base, lambda name, other: _compatible(ours, theirs, name, other))
    fused, notes = _pair_by_conversion(pairs, ours, theirs, canonicalise)
    _pair_tied(pairs, ours, theirs)
    specs, added, skips = _specs(pairs, ours, theirs)
    skips += _unpaired(pairs, ours, theirs, fused)
    compared = {spec.name for spec in specs}
    return Alignment(
        pairs=tuple(specs),
        skips=(*notes, *_grouped(skips)),
        parameters_total=sum(
            meta.count for name, meta in candidate.items() if name in compared or not is_constant(name, meta.shape)
        ),
        added_rows=added,
    )


def _compatible(ours: _Side, theirs: _Side, name: str, other: str) -> bool:
    """Equal shapes, or two tables of the same role that differ in their rows."""
    one, two = ours.table[name], theirs.table[other]
    return one.shape == two.shape or _resized(ours.roles[name], one, two)


def _resized(role: Role, one: TensorMeta, two: TensorMeta) -> bool:
    same_rest = len(one.shape) == len(two.shape) == 2 and one.shape[1] == two.shape[1]
    return role in _RESIZABLE and same_rest and min(one.shape[0], two.shape[0]) > 0


def _pair_by_conversion(
    pairs: dict[str, str], ours: _Side, theirs: _Side, canonicalise: Canonicalise
) -> tuple[set[str], list[Skip]]:
    """Add pairs whose names transformers maps to the same one; return fused names and notes.

    The library is asked only when body tensors are left on both sides.
    """
    taken = set(pairs.values())
    left = [name for name in ours.table if name not in pairs]
    right = [name for name in theirs.table if name not in taken]
    if not any(map(ours.is_body, left)) or not any(map(theirs.is_body, right)):
        return set(), []
    mine, other = canonicalise([(ours.table, ours.config), (theirs.table, theirs.config or ours.config)])
    partners: dict[str, list[str]] = defaultdict(list)
    for name in right:
        if name not in other.fused:
            partners[other.names.get(name, name)].append(name)
    for name in left:
        found = partners.get(mine.names.get(name, name), [])
        if name not in mine.fused and len(found) == 1 and _compatible(ours, theirs, name, found[0]):
            pairs[name] = found.pop()
    notes = [
        Skip(what=f"names of the {side}", why=f"not converted: {answer.problem}")
        for side, answer in (("candidate", mine), ("base", other))
        if answer.problem
    ]
    return _fused(left, right, mine, other), notes


def _fused(left: list[str], right: list[str], mine: Canonical, other: Canonical) -> set[str]:
    """Unpaired names whose counterpart is stored in another partition: both ends of a fused converter."""
    ours = {mine.names.get(name, name): name for name in left}
    theirs = {other.names.get(name, name): name for name in right}
    ends = {mine.names.get(name, name) for name in mine.fused} & set(theirs)
    ends |= {other.names.get(name, name) for name in other.fused} & set(ours)
    return {name for name in left if mine.names.get(name, name) in ends} | {
        name for name in right if other.names.get(name, name) in ends
    }


def _pair_tied(pairs: dict[str, str], ours: _Side, theirs: _Side) -> None:
    """Pair tensors that the candidate stores with the ones that the base's own ties stand for.

    Only when something else pairs: two strangers of one vocabulary share no ties.
    """
    if not pairs:
        return
    for name in ours.table.keys() - pairs.keys():
        target = _tie_target(name, ours, theirs)
        if target is not None and _compatible_values(ours.table[name], theirs.table[target]):
            pairs[name] = target


def _tie_target(name: str, ours: _Side, theirs: _Side) -> str | None:
    """The base tensor that ``name`` is a copy of in a tied model, or None."""
    role = ours.roles[name]
    table = theirs.token_table()
    if role == "unembedding" and table and theirs.generates() and not theirs.untied():
        return table
    if role == "embedding" and table and table.rpartition(".")[0].endswith("shared"):
        return table
    shared_bias = name.replace(".decoder.bias", ".bias")
    return shared_bias if role == "head" and shared_bias != name and shared_bias in theirs.table else None


def _compatible_values(one: TensorMeta, two: TensorMeta) -> bool:
    return one.shape[1:] == two.shape[1:] and len(one.shape) == len(two.shape) and min(one.count, two.count) > 0


def _specs(
    pairs: Mapping[str, str], ours: _Side, theirs: _Side
) -> tuple[list[PairSpec], dict[str, Rows], list[tuple[str, str]]]:
    """Turn name pairs into specs, in the candidate's file order; what cannot be compared becomes a skip."""
    specs, added, skips = [], {}, []
    for name, meta in ours.table.items():
        if name not in pairs:
            continue
        other = theirs.table[pairs[name]]
        why = _SCALED if ours.has_scales(name) or theirs.has_scales(other.name) else None
        why = why or _obstacle(ours.roles[name], meta, other)
        if why is not None:
            skips.append((name, why))
            continue
        rows = min(meta.rows_cols[0], other.rows_cols[0])
        specs.append(
            PairSpec(
                name=name,
                base=other,
                candidate=meta,
                role=ours.roles[name],
                layer=layer_of(name),
                rows=(0, rows),
            )
        )
        if meta.rows_cols[0] > rows:
            added[name] = (rows, meta.rows_cols[0])
        if other.rows_cols[0] > rows:
            skips.append((f"{other.name} rows [{rows}, {other.rows_cols[0]})", "rows that only the base has"))
    return specs, added, skips


def _obstacle(role: Role, meta: TensorMeta, other: TensorMeta) -> str | None:
    """Why two tensors of the same name cannot be compared; None when they can."""
    if not is_float(meta.dtype) or not is_float(other.dtype):
        if is_constant(meta.name, meta.shape):
            return _CONSTANT
        return f"{other.dtype} in the base and {meta.dtype} in the candidate are not compared as numbers"
    if meta.shape != other.shape and not _resized(role, meta, other):
        return f"shape {_shape(other)} in the base, {_shape(meta)} in the candidate"
    return _EMPTY if meta.count == 0 else None


def _shape(meta: TensorMeta) -> str:
    return "[" + ", ".join(map(str, meta.shape)) + "]"


def _unpaired(pairs: Mapping[str, str], ours: _Side, theirs: _Side, fused: set[str]) -> list[tuple[str, str]]:
    """(what, why) of every tensor without a partner, the candidate's first."""
    taken = set(pairs.values())
    skips = [
        (name, _FUSED if name in fused else _why_candidate_only(name, ours)) for name in ours.table if name not in pairs
    ]
    skips += [
        (name, _FUSED if name in fused else _why_base_only(name, ours, theirs))
        for name in theirs.table
        if name not in taken
    ]
    return skips


def _why_candidate_only(name: str, ours: _Side) -> str:
    meta = ours.table[name]
    if is_constant(name, meta.shape):
        return _CONSTANT
    if meta.count == 0:
        return _EMPTY
    return _HEAD_ONLY_CANDIDATE if ours.is_head(name) else _NO_BASE


def _why_base_only(name: str, ours: _Side, theirs: _Side) -> str:
    meta, role = theirs.table[name], theirs.roles[name]
    if is_constant(name, meta.shape):
        return _CONSTANT
    table = ours.token_table()
    if role == "unembedding" and ours.generates():
        if ours.untied() or table is None:
            return "missing from the candidate, whose configuration does not tie it to another tensor"
        return f"tied to {table} in the candidate, compared there"
    if role == "embedding" and table and table.rpartition(".")[0].endswith("shared"):
        return f"tied to {table} in the candidate, compared there"
    return _HEAD_ONLY_BASE if theirs.is_head(name) else _NO_CANDIDATE


def _grouped(skips: list[tuple[str, str]]) -> list[Skip]:
    """One skip per tensor, at most ``MAX_SKIPS_PER_REASON`` per reason and one more for the number of the rest."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for what, why in skips:
        by_reason[why].append(what)
    grouped = []
    for why, names in by_reason.items():
        grouped += [Skip(what=what, why=why) for what in names[:MAX_SKIPS_PER_REASON]]
        rest = len(names) - MAX_SKIPS_PER_REASON
        if rest > 0:
            grouped.append(Skip(what=f"and {rest:,} more", why=why))
    return grouped
