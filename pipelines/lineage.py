"""Finds the parent of one model among the declared, the listed or the Hub's own candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.parentage import gather
from pipelines.progress import Progress, Quiet
from scanner.errors import CouldNotConclude, HubAuditError, NothingToCompare
from scanner.facts import collect
from scanner.hub import Hub
from scanner.lineage.candidates import Ranked, Ranking, rank_candidates, search_hub
from scanner.lineage.claims import collect_claims, walk
from scanner.lineage.sampling import new_salt, sampling_seed
from scanner.records import Check, Claim, Relation, RepoFacts, RepoRef, Skip
from scanner.refs import parse_spec

MOST_FOUND = 12
"""Candidates taken from a search of the Hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parentage:
    """Everything the command prints.

    ``declared`` is the declared base's place in the ranking, if it is in it; ``relation`` what is declared of it;
    ``conflicts`` are sentences where two declarations disagree; ``requests`` counts those to the Hub.
    """

    subject: RepoRef
    claims: tuple[Claim, ...]
    declared: Ranked | None
    ranking: Ranking
    relation: Relation
    checks: tuple[Check, ...]
    skips: tuple[Skip, ...]
    sentence: str
    conflicts: tuple[str, ...] = ()
    requests: int = 0


def find_parent(
    model: str,
    *,
    hub: Hub,
    base: str | None = None,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Parentage:
    """Rank possible parents of a model.

    Args:
        model: what the user typed.
        hub: the reader of the Hub.
        base: asked about instead of the declared base.
        names: possible parents; the Hub is searched when None.
        progress: hears the stages.

    Raises:
        BadReference: ``model`` or ``base`` is not a reference.
        NothingToCompare: the model has no weights, or there is no possible parent.
        CouldNotConclude: the model cannot be read, or no possible parent can.
    """
    progress = progress or Quiet()
    progress.stage("reading the repository")
    wanted = parse_spec(base, endpoint=hub.endpoint) if base is not None else None
    facts = collect(hub.resolve(parse_spec(model, endpoint=hub.endpoint)), hub)
    claims = collect_claims(facts)
    skips = [Skip(what="declared base", why=note) for note in claims.notes]
    progress.stage("looking for possible parents")
    first = [collect(hub.resolve(wanted), hub)] if wanted else list(gather(claims.bases[:1], hub, skips))
    others: list[str] = [*(claims.bases[1:] if first else claims.bases), *claims.hints]
    if first and first[0].ref.repo_id:
        others += walk(first[0], hub).models[1:]
    others += names if names is not None else _searched(facts, hub, skips)
    parents = _distinct([*first, *gather(dict.fromkeys(others), hub, skips, folders=True)])
    if not parents:
        raise _no_parents(facts, skips[len(claims.notes) :])
    progress.stage("comparing sampled rows")
    seed = sampling_seed(facts.ref, facts.ref, new_salt())
    ranking = rank_candidates(facts, parents, hub, seed=seed)
    declared = next((r for r in ranking.ranked if first and r.ref == first[0].ref), None)
    return Parentage(
        subject=facts.ref,
        claims=claims.claims,
        declared=declared,
        ranking=ranking,
        relation=claims.relation or "unknown",
        checks=ranking.checks,
        skips=(*skips, *ranking.left_out),
        sentence=_sentence(declared, ranking),
        conflicts=claims.conflicts,
        requests=hub.requests,
    )


def _no_parents(facts: RepoFacts, unread: Sequence[Skip]) -> HubAuditError:
    """Why nothing can be compared: somebody may be the parent and could not be read, or nobody is named."""
    advice = "list possible parents in a file and name it with --candidates."
    if unread:
        return CouldNotConclude(
            f"No possible parent of {facts.ref.name} can be read: {unread[0].why.rstrip('.')}; or {advice}"
        )
    return NothingToCompare(f"{facts.ref.name} declares no base, and no model like it was found; {advice}")


def _searched(facts: RepoFacts, hub: Hub, skips: list[Skip]) -> list[str]:
    try:
        return list(search_hub(facts, hub, limit=MOST_FOUND))
    except HubAuditError as error:
        skips.append(Skip(what="search of the Hub", why=str(error)))
        return []


def _distinct(parents: Sequence[RepoFacts]) -> list[RepoFacts]:
    """Each pinned model once."""
    return list({str(facts.ref): facts for facts in parents}.values())


def _sentence(declared: Ranked | None, ranking: Ranking) -> str:
    """The answer in one sentence."""
    best = ranking.best
    if best is None:
        if declared is not None and declared.status == "contradicted":
            others = "no other candidate fits" if ranking.runner_up else "nothing else was found to compare with"
            return f"the weights contradict the declared base {declared.ref}, and {others}."
        return "no candidate could be shown to be its parent."
    if ranking.adapter:
        known = "the declared base" if declared is not None and declared.ref == best.ref else "the candidate"
        return (
            f"the adapter fits {known} {best.ref}; its weights do not say which base of that shape it was trained on."
        )
    if declared is None:
        return f"the nearest candidate is {best.ref}."
    if declared.ref == best.ref:
        return f"descent from the declared base {best.ref} is verified, and no candidate is nearer."
    if declared.ref in ranking.beaten:
        told = any(check.name == "direction" and check.outcome == "passed" for check in ranking.checks)
        unknown = "the weights do not say whether the model came from it or before it"
        how = "the model started from it" if told else unknown
        return f"the declared base {declared.ref} is a relative, but {best.ref} is nearer; {how}."
    if declared.status == "verified":
        return f"descent from the declared base {declared.ref} is verified; {best.ref} may as well be the start."
    return f"the declared base {declared.ref} is {declared.status}; the nearest candidate is {best.ref}."
