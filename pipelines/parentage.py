"""Asks who else could be the parent: the steps that `scan` and `lineage` share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scanner.errors import HubAuditError
from scanner.facts import collect
from scanner.hub import Hub
from scanner.lineage.candidates import rank_candidates, same_model
from scanner.records import Check, RepoFacts, Skip
from scanner.refs import parse_spec

MOST_OTHERS = 2
"""Other possible parents that a scan samples beside the base; `hubaudit lineage` looks at more."""
NEARER = "nearer_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOpinion:
    """The best of the others as one line, the checks it adds, what could not be read, and bytes of weights read."""

    runner_up: str | None
    checks: tuple[Check, ...] = ()
    skips: tuple[Skip, ...] = ()
    bytes_read: int = 0


def gather(names: Iterable[str], hub: Hub, skips: list[Skip], *, folders: bool = False) -> Iterator[RepoFacts]:
    """Pin and collect each model; one that cannot be read becomes a skip.

    Args:
        names: repository ids, Hub URLs, or (with ``folders``) folders.
        hub: the reader.
        skips: takes what cannot be read.
        folders: whether a name may be a folder; names that come from a repository never are.
    """
    for name in names:
        try:
            spec = parse_spec(name, endpoint=hub.endpoint)
            if spec.path is not None and not folders:
                skips.append(Skip(what=name, why="it is a folder here, not a model on the Hub"))
                continue
            yield collect(hub.resolve(spec), hub)
        except HubAuditError as error:
            skips.append(Skip(what=name, why=str(error)))


def second_opinion(
    candidate: RepoFacts, base: RepoFacts, others: Sequence[str], hub: Hub, *, seed: int, most_bytes: int | None = None
) -> SecondOpinion:
    """Hold the candidate against the base and a few others at the same rows; never raises.

    A model that the candidate started from rather than from the base adds a failed check named ``NEARER``.

    Args:
        candidate: facts of the model in question.
        base: facts of its base.
        others: names of other possible parents, the likeliest first.
        hub: the reader.
        seed: of the sampled rows.
        most_bytes: of weights to read from all of them; no bound but that of ``rank_candidates`` when None.
    """
    skips: list[Skip] = []
    rivals = [facts for facts in gather(others[:MOST_OTHERS], hub, skips) if not same_model(facts.ref, base.ref)]
    if not rivals:
        return SecondOpinion(runner_up=None, skips=tuple(skips))
    try:
        ranking = rank_candidates(candidate, [base, *rivals], hub, seed=seed, most_bytes=most_bytes)
    except HubAuditError as error:
        return SecondOpinion(runner_up=None, skips=(*skips, Skip(what="other parents", why=str(error))))
    best = next((ranked for ranked in ranking.ranked if not same_model(ranked.ref, base.ref)), None)
    checks = list(ranking.checks)
    nearest = ranking.best
    if nearest is not None and base.ref in ranking.beaten:
        declared = next((ranked for ranked in ranking.ranked if ranked.ref == base.ref), None)
        checks.append(
            Check(
                name=NEARER, outcome="failed", note=f"{nearest} is the nearer start than the declared base, {declared}."
            )
        )
    return SecondOpinion(
        runner_up=str(best) if best else None,
        checks=tuple(checks),
        skips=(*skips, *ranking.left_out),
        bytes_read=ranking.bytes_read,
    )
