"""Pairs tensor names that differ by a prefix or by an old spelling, without any library.

A *prefix* is a run of leading modules (``bert``, ``model.language_model``); fine-tuning with another class adds or
takes one away. Norms of old checkpoints call weight and bias ``gamma`` and ``beta``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

Prefix = tuple[str, ...]

MAX_PREFIX_PARTS = 4
"""Leading modules that a prefix may have: ``base_model.model.model.language_model``."""
MAX_PREFIXES = 16
"""Prefixes tried per side, most frequent first: bounds the work on hostile tables."""
MAX_ROUNDS = 8
"""Prefix changes applied one after another (a multi-part model may need one for each part)."""
_OLD_NORM = {"gamma": "weight", "beta": "bias"}


def pair_names(candidate: Iterable[str], base: Iterable[str], same_shape: Callable[[str, str], bool]) -> dict[str, str]:
    """Return candidate name → base name; every base name is used once at most.

    Equal names pair whatever their shapes. The rest pairs by rounds: each takes the one prefix change that pairs most
    of what is left, all of ``same_shape(candidate, base)``; a change that competes with another one for as many
    tensors is ambiguous and is not taken.
    """
    candidates, bases = list(candidate), list(base)
    known = set(bases)
    pairs = {name: name for name in candidates if name in known}
    for _ in range(MAX_ROUNDS):
        taken = set(pairs.values())
        left = [name for name in candidates if name not in pairs]
        right = [name for name in bases if name not in taken]
        found = _best_change(left, right, same_shape)
        if not found:
            break
        pairs |= found
    return pairs


def modern_spelling(name: str) -> str:
    """The name with ``gamma`` and ``beta`` of a norm written as ``weight`` and ``bias``."""
    module, dot, last = name.rpartition(".")
    if last in _OLD_NORM and "norm" in module.rpartition(".")[2].lower():
        return f"{module}{dot}{_OLD_NORM[last]}"
    return name


def _best_change(left: list[str], right: list[str], same_shape: Callable[[str, str], bool]) -> dict[str, str] | None:
    """The prefix change that pairs most tensors; None when there is none, or two that contradict each other."""
    if not left or not right:
        return None
    ranked = sorted(
        (_pairs_of(old, new, left, right, same_shape) for old, new in _changes(left, right)),
        key=len,
        reverse=True,
    )
    if not ranked or not ranked[0]:
        return None
    best = ranked[0]
    rivals = [pairs for pairs in ranked[1:] if len(pairs) == len(best) and pairs != best]
    if any(_contradict(best, rival) for rival in rivals):
        return None
    return best


def _contradict(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """True when the two give one candidate two partners, or one base tensor two candidates."""
    reverse = {base: name for name, base in one.items()}
    return any(one.get(name, base) != base or reverse.get(base, name) != name for name, base in other.items())


def _changes(left: list[str], right: list[str]) -> list[tuple[Prefix, Prefix]]:
    """Prefix pairs (candidate's, base's) of which one begins with the other: modules put in or taken out."""
    ours, theirs = [(), *_prefixes(left)], [(), *_prefixes(right)]
    return [(old, new) for old in ours for new in theirs if old == new == () or _begins(old, new) or _begins(new, old)]


def _begins(long: Prefix, short: Prefix) -> bool:
    return len(long) > len(short) and long[: len(short)] == short


def _prefixes(names: list[str]) -> list[Prefix]:
    """The most frequent runs of leading modules, index parts (``layers.0``) left out."""
    counts: Counter[Prefix] = Counter()
    for name in names:
        parts = name.split(".", MAX_PREFIX_PARTS + 1)[:-1][:MAX_PREFIX_PARTS]
        for length in range(1, len(parts) + 1):
            if parts[length - 1].isdecimal():
                break
            counts[tuple(parts[:length])] += 1
    return [prefix for prefix, _ in counts.most_common(MAX_PREFIXES)]


def _pairs_of(
    old: Prefix,
    new: Prefix,
    left: list[str],
    right: list[str],
    same_shape: Callable[[str, str], bool],
) -> dict[str, str]:
    """Pairs of names that agree once ``old`` is cut from the candidate's and ``new`` from the base's."""
    theirs = {_rest(name, new): name for name in right}
    theirs.pop(None, None)
    pairs = {}
    for name in left:
        rest = _rest(name, old)
        partner = theirs.pop(rest, None) if rest is not None else None
        if partner is not None and same_shape(name, partner):
            pairs[name] = partner
    return pairs


def _rest(name: str, prefix: Prefix) -> str | None:
    """What follows the prefix, in modern spelling; None when the name does not begin with it."""
    start = "".join(f"{part}." for part in prefix)
    return modern_spelling(name[len(start) :]) if name.startswith(start) else None
