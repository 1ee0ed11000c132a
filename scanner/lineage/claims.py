"""Collects what a repository says about its parent, from every place where that can be said.

A *claim* is verbatim text and where it stands; a *base* is a claim that names a repository. The places, most trusted
first: the card, the adapter's configuration, a merge recipe, the Hub's API, the Hub's tags (the last two derive from
the card), and ``_name_or_path`` of config.json, which is often a folder on the author's disk: it counts only when
nothing else is declared and never contradicts anything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from scanner.card import MAX_BASE_MODELS, MAX_NAME_CHARS, parse_card
from scanner.card_context import Ancestor
from scanner.errors import FileNotFound, HubAuditError
from scanner.hub import Hub
from scanner.lineage.recipes import recipe_models
from scanner.records import Claim, Relation, RepoFacts
from scanner.refs import RepoSpec, as_repo_id

CARD, ADAPTER, MERGE = "card base_model", "adapter_config.json", "mergekit_config.yml"
API, TAGS, NAME_OR_PATH = "Hub baseModels", "Hub tags", "config.json _name_or_path"
_TRUST = (CARD, ADAPTER, MERGE, API, TAGS, NAME_OR_PATH)
_WEAK = frozenset({NAME_OR_PATH})
_RELATIONS: Mapping[str, Relation] = {
    "finetune": "finetune",
    "adapter": "adapter",
    "merge": "merge",
    "quantized": "quantized",
}
_TAG = "base_model:"
_LICENCE = "license:"
MAX_CHAIN = 10
"""Models in a line of descent; the longest released families are shorter."""
MAX_PARENTS = 3
"""Further parents of a merge whose licences are read."""
_CARD_BYTES = 5 << 20
_SHOWN_BASES = 3
_SHOWN_CHARS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSet:
    """Everything declared about the parent.

    ``claims`` are verbatim, bounded in number and length. ``bases`` are repository ids, most trusted first, without
    repeats and without the model itself. ``relation`` is the declared one, else what the files show (an adapter, a
    merge recipe, a quantised configuration), else None. ``conflicts`` are sentences where two claims disagree,
    ``notes`` sentences about claims that name no repository.
    """

    claims: tuple[Claim, ...]
    bases: tuple[str, ...]
    relation: Relation | None
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    """Repository ids that only the configuration's ``_name_or_path`` names, beside declared bases."""


def collect_claims(facts: RepoFacts) -> ClaimSet:
    """Return what is declared about the parent of a repository. Reads nothing; never raises."""
    claims = tuple(_claims(facts))
    own = (facts.ref.repo_id or "").casefold()
    named = _named(claims)
    itself = [source for source, ids in named.items() if own and own in map(str.casefold, ids)]
    named = {source: [i for i in ids if i.casefold() != own] for source, ids in named.items()}
    strong = [i for source, ids in named.items() if source not in _WEAK for i in ids]
    bases = _distinct(strong or [i for ids in named.values() for i in ids])
    relations = dict(_relations(facts))
    return ClaimSet(
        claims=claims,
        bases=bases,
        relation=next(iter(relations.values()), None),
        conflicts=tuple(_base_conflicts(named, itself)) + tuple(_relation_conflicts(relations)),
        notes=tuple(_notes(facts, claims, itself)),
        hints=tuple(i for i in _distinct([i for source in _WEAK for i in named.get(source, ())]) if i not in bases),
    )


def _claims(facts: RepoFacts) -> Iterator[Claim]:
    """Every claim, most trusted place first."""
    for name in facts.card.base_models:
        yield _claim(CARD, name)
    if facts.card.relation:
        yield _claim("card base_model_relation", facts.card.relation)
    adapter = (facts.adapter_config or {}).get("base_model_name_or_path")
    if adapter is not None:
        yield _claim(ADAPTER, adapter)
    for name in recipe_models(facts.mergekit_config or "", MAX_BASE_MODELS):
        yield _claim(MERGE, name)
    for name in _texts(facts.hub.get("base_models")):
        yield _claim(API, name)
    for tag in _texts(facts.hub.get("tags")):
        if tag.startswith(_TAG):
            yield _claim(TAGS, tag)
    own_name = (facts.config or {}).get("_name_or_path")
    if isinstance(own_name, str) and own_name.strip():
        yield _claim(NAME_OR_PATH, own_name)


def _claim(source: str, value: object) -> Claim:
    text = value if isinstance(value, str) else repr(value)
    return Claim(source=source, value=text[:MAX_NAME_CHARS])


def _texts(values: object) -> tuple[str, ...]:
    return tuple(v for v in values if isinstance(v, str)) if isinstance(values, list | tuple) else ()


def _named(claims: tuple[Claim, ...]) -> dict[str, list[str]]:
    """Place → repository ids that its claims name, most trusted place first."""
    named: dict[str, list[str]] = {source: [] for source in _TRUST}
    for claim in claims:
        text = _tag_target(claim.value) if claim.source == TAGS else claim.value
        repo_id = as_repo_id(text) if len(text) < MAX_NAME_CHARS else None
        if claim.source in named and repo_id and len(named[claim.source]) < MAX_BASE_MODELS:
            named[claim.source].append(repo_id)
    return named


def _tag_target(tag: str) -> str:
    """``base_model:finetune:org/x`` and ``base_model:org/x`` both name ``org/x``."""
    return tag.removeprefix(_TAG).rpartition(":")[2]


def _distinct(ids: list[str]) -> tuple[str, ...]:
    """Drop repeats; ids that differ in case, or that lack the namespace of a legacy id, are the same."""
    kept: list[str] = []
    for repo_id in ids:
        if not any(_same(repo_id, other) for other in kept):
            kept.append(repo_id)
    return tuple(kept[:MAX_BASE_MODELS])


def _same(one: str, other: str) -> bool:
    """Whether two ids name one repository: ``gpt2`` is the old name of ``openai-community/gpt2``."""
    first, second = one.casefold(), other.casefold()
    if ("/" in first) != ("/" in second):
        return first.rpartition("/")[2] == second.rpartition("/")[2]
    return first == second


def _relations(facts: RepoFacts) -> Iterator[tuple[str, Relation]]:
    """(where, relation) of every declaration that is one of the Hub's four, then what the files show."""
    declared = [("the card", facts.card.relation), ("the Hub", facts.hub.get("relation"))]
    declared += [("the Hub's tags", tag.split(":")[1]) for tag in _texts(facts.hub.get("tags")) if tag.count(":") > 1
                 and tag.startswith(_TAG)]  # fmt: skip
    for where, word in declared:
        if isinstance(word, str) and word in _RELATIONS:
            yield where, _RELATIONS[word]
    if facts.adapter_config is not None:
        yield "adapter_config.json", "adapter"
    elif facts.mergekit_config is not None:
        yield "mergekit_config.yml", "merge"
    elif isinstance((facts.config or {}).get("quantization_config"), Mapping):
        yield "config.json", "quantized"


def _base_conflicts(named: Mapping[str, list[str]], itself: list[str]) -> Iterator[str]:
    """Sentences where two places name bases of which none is the same, the strong places only."""
    places = [source for source in itself if source not in _WEAK]
    if places:
        *first, last = places
        who = f"{', '.join(first)} and {last} declare" if first else f"{last} declares"
        yield f"{who} the model itself as its base."
    strong = [(source, _distinct(ids)) for source, ids in named.items() if ids and source not in _WEAK]
    for index, (source, ids) in enumerate(strong):
        for other, others in strong[index + 1 :]:
            missing = [o for o in others if not any(_same(o, i) for i in ids)]
            if len(missing) == len(others) or (missing and other in {ADAPTER, MERGE}):
                yield f"{source} says {_list(ids)}, but {other} says {_list(missing)}."


def _list(ids: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(i[:_SHOWN_CHARS] for i in ids[:_SHOWN_BASES])
    rest = len(ids) - _SHOWN_BASES
    return f"{shown} and {rest} more" if rest > 0 else shown


def _relation_conflicts(relations: Mapping[str, Relation]) -> Iterator[str]:
    """One sentence when the places do not agree on the relation."""
    if len(set(relations.values())) > 1:
        said = ", ".join(f"{where} says {relation}" for where, relation in relations.items())
        yield f"The declared relations differ: {said}."


def _notes(facts: RepoFacts, claims: tuple[Claim, ...], itself: list[str]) -> Iterator[str]:
    """Sentences about declarations that lead nowhere."""
    if facts.card.problem:
        yield facts.card.problem
    for source in (CARD, ADAPTER, MERGE):
        values = [claim.value for claim in claims if claim.source == source]
        unnamed = [value for value in values if as_repo_id(value) is None]
        if unnamed:
            yield f"{source} holds {len(unnamed)} of {len(values)} values that name no repository on the Hub."
    if facts.mergekit_config is not None and not any(claim.source == MERGE for claim in claims):
        yield "mergekit_config.yml names no model, or cannot be read."
    if set(itself) & _WEAK and len(claims) == 1:
        yield "The model names only itself as its base."


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A declared line of descent, ``models`` from the start to the root; ``note`` says why it ended early, if so.

    ``ancestors`` are the models after the start that could be read, with the licences they declare.
    """

    models: tuple[str, ...]
    note: str | None = None
    ancestors: tuple[Ancestor, ...] = ()


def walk_chain(first: str | RepoFacts, hub: Hub) -> tuple[str, ...]:
    """Return the models from ``first`` to the root of its family, ``first`` included. As ``walk``, without the note."""
    return walk(first, hub).models


def walk(first: str | RepoFacts, hub: Hub) -> Walk:
    """Follow the most trusted base of each model, at most ``MAX_CHAIN`` models and none twice.

    At most four requests per model, none for facts already at hand. Never raises: a model that cannot be read ends the
    walk with a note.
    """
    models = [first if isinstance(first, str) else first.ref.name]
    ancestors: list[Ancestor] = []
    parent, _ = _declared_parent(first, hub)
    while isinstance(parent, str) and len(models) < MAX_CHAIN:
        if any(_same(parent, model) for model in models):
            circle = f"{models[-1]} declares {parent} as its base, which descends from it."
            return Walk(models=tuple(models), note=circle, ancestors=tuple(ancestors))
        models.append(parent)
        parent, licences = _declared_parent(parent, hub)
        if not isinstance(parent, HubAuditError):
            ancestors.append(Ancestor(name=models[-1], licences=licences))
    if isinstance(parent, str):
        note: str | None = f"The family has more than {MAX_CHAIN} generations."
    else:
        note = f"The family is known up to {models[-1]}: {parent}" if parent is not None else None
    return Walk(models=tuple(models), note=note, ancestors=tuple(ancestors))


def other_parents(bases: tuple[str, ...], hub: Hub) -> tuple[Ancestor, ...]:
    """Return the licences of the declared parents after the first, as merges have them; those that can be read.

    At most ``MAX_PARENTS`` of them, and four requests for each. Never raises.
    """
    read = [(name, _declared_parent(name, hub)) for name in bases[1 : 1 + MAX_PARENTS]]
    return tuple(
        Ancestor(name=name, licences=licences)
        for name, (parent, licences) in read
        if not isinstance(parent, HubAuditError)
    )


def _declared_parent(model: str | RepoFacts, hub: Hub) -> tuple[str | HubAuditError | None, tuple[str, ...]]:
    """The most trusted base that a model declares, None when it declares none, or what kept us from reading it.

    Beside it stand the licences among the Hub's tags, which the Hub makes of the card.

    ``_name_or_path`` does not count: it often names the model itself, or a folder of whoever trained it. A name from a
    stranger's card is looked up on the Hub alone, whatever folders lie around here.
    """
    licences: tuple[str, ...] = ()
    if isinstance(model, RepoFacts):
        return next(iter(collect_claims(replace(model, config=None)).bases), None), licences
    try:
        ref = hub.resolve(RepoSpec(text=model, repo_id=model))
        told = hub.describe(ref)
        licences = tuple(tag.removeprefix(_LICENCE) for tag in _texts(told.get("tags")) if tag.startswith(_LICENCE))
        bases = collect_claims(RepoFacts(ref=ref, files=(), hub=told)).bases
        if not bases:
            card = parse_card(hub.read_text(ref, "README.md", limit_bytes=_CARD_BYTES))
            bases = collect_claims(RepoFacts(ref=ref, files=(), card=card)).bases
    except FileNotFound:
        return None, licences
    except HubAuditError as error:
        return error, licences
    return next(iter(bases), None), licences
