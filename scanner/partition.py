"""Proposes which tensors of one checkpoint are parts of a tensor that the other one stores in one piece.

Queries, keys and values in one matrix; gates and inputs of a feed-forward block in one; the experts of a layer stacked;
matrices with inputs first (GPT-2's ``Conv1D``). Names and shapes alone propose, and only what no name pairs; which of
the possible *layouts* is the real one is for the values to say (``scanner.lineage.parted``).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from typing import Any, Final

from scanner.records import Role, TensorMeta
from scanner.roles import expert_of, is_constant, layer_of, role_of
from scanner.weights.dtypes import is_float
from scanner.weights.rearranged import Place

MAX_EXPERTS: Final = 1024
MAX_MODULES: Final = 32
"""Modules of one layer that are looked at; bounds the work on hostile tables."""
MAX_STACKS: Final = 512
"""As ``MAX_MODULES``, for stacks of experts."""
MAX_STEPS: Final = 1 << 17
"""Comparisons of a tensor with a module, or with one expert of a stack: more than renaming every expert's matrices of
61 layers of 256 experts takes (94,000)."""
TURNED: Final = ", turned"
"""Ending of the labels of layouts that are turned."""
_PARAMETERS: Final = frozenset({"weight", "bias", "kernel"})
_ROLE_SETS: Final[Mapping[Role, tuple[tuple[Role, ...], ...]]] = {
    "attention": (("query", "key", "value"), ("key", "value")),
    "mlp_in": (("mlp_gate", "mlp_in"),),
}
"""Role of a fused tensor → roles of what it may be made of."""

Table = Mapping[str, TensorMeta]
Config = Mapping[str, Any] | None
Layout = tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One tensor in one piece, and what it may be made of.

    ``layouts`` maps a label to the place of every part, in the order of ``parts``; the usual layout is first. Groups of
    one ``kind`` were written by the same code and have the same layout.
    """

    fused: TensorMeta
    parts: tuple[TensorMeta, ...]
    layouts: Mapping[str, Layout]
    kind: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Site:
    """A name taken apart: the module above, the expert, the module itself, and which of its parameters."""

    parent: tuple[str, ...]
    expert: int | None
    leaf: str
    parameter: str

    @classmethod
    def of(cls, name: str) -> "_Site":
        parts = name.split(".")
        parameter = parts.pop() if len(parts) > 1 and parts[-1] in _PARAMETERS else "weight"
        leaf = parts.pop()
        for ending in ("_weight", "_bias"):
            if leaf.endswith(ending):
                leaf, parameter = leaf.removesuffix(ending), ending[1:]
        expert = expert_of(name)
        if expert is not None:
            parts = parts[: next(i for i, part in enumerate(parts) if part in {"experts", "local_experts"})]
        elif parts and parts[-1] in {"experts", "local_experts"}:
            parts.pop()
        return cls(tuple(parts), expert, leaf, parameter)


@dataclass(slots=True)
class _Parts:
    """The tensors of one module, by the parameter, the expert and the role."""

    by_place: dict[tuple[str, int | None, Role], list[TensorMeta]] = field(default_factory=lambda: defaultdict(list))

    def get(self, parameter: str, expert: int | None, roles: Sequence[Role]) -> tuple[TensorMeta, ...] | None:
        """One tensor for each role; None when one is missing or there are two."""
        found = [self.by_place.get((parameter, expert, role), []) for role in roles]
        return tuple(metas[0] for metas in found) if all(len(metas) == 1 for metas in found) else None


@dataclass(slots=True)
class Work:
    """What may still be looked at. ``unseen`` counts the tensors in one piece that were not, once nothing was left."""

    steps: int = MAX_STEPS
    unseen: int = 0

    def spend(self, steps: int) -> bool:
        """Take so many steps; false, and nothing taken, when there are fewer left."""
        if steps > self.steps:
            return False
        self.steps -= steps
        return True


Modules = dict[int | None, dict[tuple[str, ...], _Parts]]
"""Layer → module's path → its tensors."""


def propose(fused: Table, parts: Table, configs: Sequence[Config], work: Work | None = None) -> list[Group]:
    """Return what may be made of what, each tensor in one group at most.

    Args:
        fused: tensors of one side that no name pairs.
        parts: the same of the other side.
        configs: parsed configurations of both sides, for the number of heads.
        work: bounds the steps, and says how many tensors were left out for it; ``MAX_STEPS`` when None.
    """
    if not fused or not parts:
        return []
    modules = _modules(parts)
    heads = _head_counts(configs)
    work = work or Work()
    taken: set[str] = set()
    found = []
    stacks = 0
    for meta in fused.values():
        stacks += len(meta.shape) == 3
        if not _usable(meta) or (len(meta.shape) == 3 and stacks > MAX_STACKS):
            continue
        site = _Site.of(meta.name)
        here = modules.get(layer_of(meta.name), {})
        if not work.spend(len(here) * (1 + (meta.shape[0] if len(meta.shape) == 3 else 1))):
            work.unseen += 1
            continue
        for group in _groups_of(meta, site, _near(site.parent, here), heads):
            names = {part.name for part in group.parts}
            if not names & taken:
                taken |= names
                found.append(group)
                break
    return found


def propose_turned(ours: Table, theirs: Table) -> list[Group]:
    """Return pairs of equal names whose axes are, or (square ones) could be, exchanged.

    The first table holds what counts as the parts. Square matrices take part only where others are turned plainly.
    """
    pairs = [(meta, theirs[name]) for name, meta in ours.items() if name in theirs and len(meta.shape) == 2]
    plain = [pair for pair in pairs if pair[0].shape == pair[1].shape[::-1] != pair[1].shape]
    if not plain:
        return []
    square = [
        (m, o) for m, o in pairs if m.shape == o.shape and m.shape[0] == m.shape[1] and layer_of(m.name) is not None
    ]
    groups = []
    for one, other in (*plain, *square):
        if not (_usable(one) and _usable(other)):
            continue
        straight = {"as it is": (Place(rows=one.shape[0]),)} if one.shape == other.shape else {}
        groups.append(
            Group(
                fused=other,
                parts=(one,),
                layouts={**straight, "turned": (Place(rows=one.shape[0], turned=True),)},
                kind=("turned", _Site.of(one.name).leaf, *_Site.of(one.name).parent[-1:], str(one.shape)),
            )
        )
    return groups


def _usable(meta: TensorMeta) -> bool:
    return is_float(meta.dtype) and meta.count > 0 and not is_constant(meta.name, meta.shape)


def _modules(table: Table) -> Modules:
    """The tensors of every module that could be parts of something, by layer."""
    modules: Modules = defaultdict(dict)
    for name, meta in table.items():
        site = _Site.of(name)
        if not _usable(meta) or len(meta.shape) > 2 or (site.expert or 0) >= MAX_EXPERTS:
            continue
        layer = modules[layer_of(name)]
        if site.parent not in layer and len(layer) >= MAX_MODULES:
            continue
        module = layer.setdefault(site.parent, _Parts())
        module.by_place[site.parameter, site.expert, _role(name, site)].append(meta)
    return modules


def _role(name: str, site: _Site) -> Role:
    """The role of the module, whichever of its parameters this is."""
    if site.parameter == "bias":
        name = name.removesuffix("bias") + "weight"
    return role_of(name, (2, 2))


def _near(parent: tuple[str, ...], modules: Mapping[tuple[str, ...], _Parts]) -> list[_Parts]:
    """The modules of one layer, only those whose path ends most like ``parent``, if that is one."""

    def alike(path: tuple[str, ...]) -> int:
        pairs = zip(reversed(path), reversed(parent), strict=False)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(path), len(parent)))

    here = [(alike(path), module) for path, module in modules.items()]
    best = max((score for score, _ in here), default=0)
    nearest = [module for score, module in here if score == best]
    # A layer with one such module may call it what it likes; two that are called alike are a riddle.
    return nearest if len(nearest) == 1 else [module for _, module in here]


def _groups_of(meta: TensorMeta, site: _Site, modules: Sequence[_Parts], heads: tuple[int, ...]) -> Iterator[Group]:
    """The ways to make this tensor of the tensors of one of these modules; none when two modules would do."""
    role = _role(meta.name, site)
    found = []
    for module in modules:
        if len(meta.shape) == 3:
            made = _stack(meta, role, site, module)
        else:
            made = _fused(meta, role, site, module, heads) or _renamed(meta, role, site, module)
        if made is not None:
            found.append(made)
        if len(found) > 1:
            return
    if found:
        yield found[0]


def _fused(meta: TensorMeta, role: Role, site: _Site, module: _Parts, heads: tuple[int, ...]) -> Group | None:
    for roles in _ROLE_SETS.get(role, ()):
        parts = module.get(site.parameter, site.expert, roles)
        if parts is None or any(len(part.shape) != len(meta.shape) for part in parts):
            continue
        turned = _turning(meta.shape, [part.shape for part in parts])
        layouts = {
            label: places
            for turn in turned
            for label, places in _orders(roles, tuple(part.shape[0] for part in parts), heads, turned=turn)
        }
        if layouts:
            return Group(
                fused=meta, parts=parts, layouts=layouts, kind=(site.leaf, *site.parent[-1:], *map(str, roles))
            )
    return None


def _renamed(meta: TensorMeta, role: Role, site: _Site, module: _Parts) -> Group | None:
    """The same expert's tensor of the same role under another name."""
    parts = module.get(site.parameter, site.expert, (role,)) if site.expert is not None and role != "other" else None
    if parts is None or parts[0].shape != meta.shape:
        return None
    place = Place(rows=meta.rows_cols[0])
    return Group(fused=meta, parts=parts, layouts={"renamed": (place,)}, kind=("renamed", site.leaf, *site.parent[-1:]))


def _stack(meta: TensorMeta, role: Role, site: _Site, module: _Parts) -> Group | None:
    """All experts of a layer in one tensor ``[experts, rows, columns]`` or ``[experts, columns, rows]``."""
    experts = meta.shape[0]
    if experts > MAX_EXPERTS or (site.parameter, experts, role) in module.by_place:
        return None
    for roles in (*_ROLE_SETS.get(role, ()), (role,)):
        per_expert = [module.get(site.parameter, expert, roles) for expert in range(experts)]
        if not all(per_expert):
            continue
        parts = tuple(part for found in per_expert if found for part in found)
        shapes = [part.shape for part in parts]
        if any(shape != shapes[i % len(roles)] for i, shape in enumerate(shapes)):
            return None
        layouts: dict[str, Layout] = {}
        for turn in _turning(meta.shape[1:], shapes[: len(roles)]):
            rows = tuple(shape[0] for shape in shapes[: len(roles)])
            for label, places in _orders(roles, rows, (), turned=turn):
                layouts[label] = tuple(place.of_expert(expert) for expert in range(experts) for place in places)
        if layouts:
            return Group(fused=meta, parts=parts, layouts=layouts, kind=("stack", site.leaf, *map(str, roles)))
    return None


def _turning(whole: tuple[int, ...], parts: Sequence[tuple[int, ...]]) -> list[bool]:
    """Whether the parts fill the whole as it is (False), turned (True), or both; vectors are never turned."""
    rows = sum(part[0] for part in parts)
    rest = {part[1:] for part in parts}
    if len(rest) != 1:
        return []
    (columns,) = rest
    return [turn for turn, shape in ((False, (rows, *columns)), (True, (*columns, rows))) if shape == whole][
        : len(whole)
    ]


@lru_cache(maxsize=256)
def _orders(
    roles: tuple[Role, ...], rows: tuple[int, ...], heads: tuple[int, ...], *, turned: bool
) -> tuple[tuple[str, Layout], ...]:
    """Layouts by label, one part after the other in any order, and interleaved by heads or by rows."""
    ending = TURNED if turned else ""
    return tuple((f"{label}{ending}", places) for label, places in _laid_out(roles, rows, heads, turned=turned))


def _laid_out(
    roles: tuple[Role, ...], rows: tuple[int, ...], heads: tuple[int, ...], *, turned: bool
) -> Iterator[tuple[str, Layout]]:
    seen: set[Layout] = set()

    def fresh(places: Layout) -> bool:
        return not (places in seen or seen.add(places))  # type: ignore[func-returns-value]

    for order in permutations(range(len(rows))):
        starts = {part: sum(rows[before] for before in order[:place]) for place, part in enumerate(order)}
        places = tuple(Place(rows=count, offset=starts[i], turned=turned) for i, count in enumerate(rows))
        if fresh(places):
            yield ", ".join(roles[part] for part in order), places
    chunks = heads if "key" in roles else (rows[0],)
    for count in chunks:
        if len(rows) < 2 or count < 2 or any(part % count for part in rows):
            continue
        widths = [part // count for part in rows]
        places = tuple(
            Place(rows=part, offset=sum(widths[:i]), width=widths[i], period=sum(widths), turned=turned)
            for i, part in enumerate(rows)
        )
        if fresh(places):
            yield f"{', '.join(roles)} in {count} turns", places


def _head_counts(configs: Sequence[Config]) -> tuple[int, ...]:
    """Every number of heads or groups of heads that a configuration names."""
    counts = []
    for config in configs:
        inner = (config or {}).get("text_config")
        for where in (config or {}, inner if isinstance(inner, Mapping) else {}):
            for key in ("num_key_value_heads", "num_attention_heads", "n_head", "num_heads"):
                value = where.get(key)
                if type(value) is int and 1 < value <= 1 << 12:
                    counts.append(value)
    return tuple(dict.fromkeys(counts))
