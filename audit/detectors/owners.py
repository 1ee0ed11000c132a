"""Owners whose names are nearly another's, and bases whose repository is not what it was when it was declared."""

from collections.abc import Iterator
from datetime import datetime

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.lookalikes import Likeness, known_owners, nearest
from audit.records import Location, Measurement, Severity
from audit.stated import stated
from scanner.side.records import BaseHistory

LOOKALIKE = Rule(id="HA751", title="The owner's name is nearly that of another", severity="medium")
HISTORY = Rule(
    id="HA752", title="The base's repository is not the one that was declared", severity="medium", weighs=False
)

_CARD = "README.md"


def run(evidence: Evidence) -> Iterator[Hit]:
    """Judge the names on both sides, then the base's history."""
    least = int(evidence.profile.value(f"{LOOKALIKE.id}.least_chars"))
    own, theirs = _owner(evidence.candidate.ref.repo_id), _owner(evidence.base.ref.repo_id if evidence.base else None)
    known = known_owners()
    if own and own.casefold() not in {name.casefold() for name in known}:
        of_base = nearest(own, [theirs], least_chars=least) if theirs else None
        of_known = nearest(own, known, least_chars=least)
        if of_base is not None:
            yield _lookalike(evidence, own, of_base, of_base=True)
        elif of_known is not None:
            yield _lookalike(evidence, own, of_known, of_base=False)
    if theirs and (found := nearest(theirs, known, least_chars=least)) is not None and theirs != own:
        yield _lookalike(evidence, theirs, found, of_base=False)
    if evidence.side.history is not None:
        yield from _history(evidence.side.history, evidence)


def _owner(repo_id: str | None) -> str:
    return repo_id.split("/", maxsplit=1)[0] if repo_id and "/" in repo_id else ""


def _lookalike(evidence: Evidence, owner: str, found: tuple[str, Likeness], *, of_base: bool) -> Hit:
    name, how = found
    grave = of_base or how == "the same to a quick eye"
    whose = "the owner of the declared base" if of_base else "a well-known publisher"
    return stated(
        evidence,
        LOOKALIKE,
        "medium" if grave else "low",
        "medium" if grave else "low",
        f"The name {owner!r} and {name!r}, {whose}, are {how}. Names prove nothing, but models have been published "
        f"under names that are nearly a known one.",
        f"Make sure that {owner!r} is whom you mean.",
        Measurement(name="names it resembles", value=1.0, unit="names", threshold=0.0, comparison=">"),
        locations=(Location(file=_CARD),),
        discriminator=f"{owner}:{name}",
        score=None if grave else 0.0,
    )


def _history(history: BaseHistory, evidence: Evidence) -> Iterator[Hit]:
    days = evidence.profile.value(f"{HISTORY.id}.days")
    asked, found = _owner(history.asked), _owner(history.found)
    if asked and asked.casefold() != found.casefold():
        yield _told(
            evidence,
            "low",
            f"The declared base {history.asked} now answers as {history.found}: its owner has changed.",
            0.0,
            "owner",
        )
    late = _days(history.candidate_created, history.created)
    first = _days(history.candidate_created, history.first_commit)
    if late is not None and late > days:
        yield _told(
            evidence,
            "medium",
            f"The repository of {history.found} was created {late:,.0f} days after the model that declares it as its "
            f"base. A deleted name may have been registered again, or the base was uploaded anew.",
            late,
            "created",
        )
    elif first is not None and first > days:
        squashed = " A commit says that the history was squashed." if history.squashed else ""
        yield _told(
            evidence,
            "low",
            f"The oldest commit of {history.found} is {first:,.0f} days younger than the model that declares it as its "
            f"base: the commits that training may have started from are gone.{squashed}",
            first,
            "history",
        )


def _days(before: str | None, after: str | None) -> float | None:
    """Days from one moment to another; None when one is unknown."""
    try:
        if before is None or after is None:
            return None
        return (datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds() / 86_400
    except (ValueError, TypeError):
        return None


def _told(evidence: Evidence, severity: Severity, explanation: str, days: float, what: str) -> Hit:
    return stated(
        evidence,
        HISTORY,
        severity,
        "medium",
        explanation,
        "Pin the base by its commit; see whether the weights descend from it (`hubaudit lineage`).",
        Measurement(name="days between the model and its base", value=days, unit="days"),
        locations=(Location(file=_CARD),),
        discriminator=what,
        score=0.0,
    )


DETECTOR = Detector(name="owners", rules=(LOOKALIKE, HISTORY), run=run, needs_drift=False, needs_verified_base=False)
