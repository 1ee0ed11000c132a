"""One audit of a card, told once: from what the user typed to a sealed report, without reading a weight."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from audit.card_alone import audit_card
from audit.evidence import Evidence
from audit.records import RuntimeRecord
from audit.suppressions import Entry
from audit.thresholds import Profile, load_profile
from pipelines.audit_repo import Audited, Ending, peak_rss_bytes
from pipelines.progress import Progress, Quiet
from pipelines.settings import tool_version
from scanner.card_context import Ancestor, CardContext, Stored
from scanner.declared_datasets import look_up_datasets
from scanner.errors import HubAuditError
from scanner.eval_results import read_results
from scanner.facts import collect
from scanner.hub import Hub
from scanner.lineage.claims import collect_claims, other_parents, walk
from scanner.pickles import inspect_pickles
from scanner.records import Lineage, RepoFacts, Skip
from scanner.refs import RepoSpec, parse_spec
from scanner.side.gather import look_around
from scanner.side.licence_files import read_licence_files


def card_repo(
    model: str,
    *,
    hub: Hub,
    base: str | None = None,
    profile: Profile | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    accepted: Sequence[Entry] = (),
) -> Audited:
    """Hold a model's card, and the files around it, against configuration, headers, published scores and the base's.

    Args:
        model: what the user typed: ``org/name``, ``org/name@revision``, a Hub URL or a folder.
        hub: the reader of the Hub.
        base: the base to hold the card against, instead of the declared one.
        profile: thresholds; the default profile when None.
        progress: hears the stages; silence when None.
        clock: gives the report's time stamp.
        accepted: findings that were accepted (``audit.suppressions``); they are marked and do not count.

    Raises:
        BadReference: ``model`` or ``base`` is not a reference.
        CouldNotConclude: the model itself cannot be read, so there is nothing to report on.
    """
    started = time.monotonic()
    progress = progress or Quiet()
    progress.stage("reading the repository")
    wanted = parse_spec(base, endpoint=hub.endpoint) if base is not None else None
    facts = collect(hub.resolve(parse_spec(model, endpoint=hub.endpoint)), hub)
    claims = collect_claims(facts)
    skips = [*facts.skips, *(Skip(what="declared base", why=note) for note in claims.notes)]
    ending, problem = _readable(facts)
    cause = None
    base_facts: RepoFacts | None = None
    chain: tuple[str, ...] = ()
    ancestors: tuple[Ancestor, ...] = ()
    declared = RepoSpec(text=claims.bases[0], repo_id=claims.bases[0]) if claims.bases else None
    if (wanted := wanted or declared) is not None:
        progress.stage("reading the base's card")
        try:
            base_facts = collect(hub.resolve(wanted), hub)
            family = walk(base_facts, hub)
            chain = family.models
            ancestors = (*family.ancestors, *(other_parents(claims.bases, hub) if base is None else ()))
            skips += [Skip(what="family", why=family.note)] if family.note else []
        except HubAuditError as error:
            ending, problem, cause = "could_not_conclude", str(error), type(error).__name__
            skips.append(Skip(what="base", why=problem))
    progress.stage("reading tensor tables")
    stored = _stored(facts, hub, skips)
    progress.stage("reading the files around the card")
    own = base is None and bool(claims.bases)
    side = look_around(facts, base_facts, hub, declared=claims.bases[0] if own else None)
    licence_files = read_licence_files(facts, hub, skips)
    progress.stage("looking into pickles")
    pickles, uninspected = inspect_pickles(facts, hub)
    progress.stage("asking for datasets and scores")
    scores, unread = read_results(facts, hub)
    evidence = Evidence(
        candidate=facts,
        base=base_facts,
        lineage=Lineage(
            candidate=facts.ref,
            base=base_facts.ref if base_facts else None,
            relation="unknown",
            status="unverified",
            claims=claims.claims,
            conflicts=claims.conflicts,
            chain=chain,
        ),
        drift=None,
        tokens=None,
        profile=profile or load_profile(),
        pickles=pickles,
        side=side,
        card_context=CardContext(
            stored=stored,
            scores=scores,
            datasets=look_up_datasets(facts, hub),
            weights_asked=False,
            ancestors=ancestors,
            licence_files=licence_files,
        ),
    )
    progress.stage("judging")
    report = audit_card(
        evidence,
        created_at=clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool_version=tool_version(),
        runtime=RuntimeRecord(
            seconds=round(time.monotonic() - started, 3), peak_rss_bytes=peak_rss_bytes(), requests=hub.requests
        ),
        skips=(*skips, *side.skips, *uninspected, *unread),
        accepted=accepted,
    )
    return Audited(report=report, ending=ending, problem=problem, cause=cause)


def _readable(facts: RepoFacts) -> tuple[Ending, str | None]:
    """Whether there is a card to hold against anything."""
    if facts.card.text is None:
        why = next((skip.why for skip in facts.skips if skip.what == "README.md"), None)
        if why is not None:
            return "could_not_conclude", f"The card of {facts.ref.name} was not read. {why}"
        return "nothing_to_compare", f"{facts.ref.name} has no README.md, so there is no card to check."
    if facts.card.metadata is None and facts.card.problem is not None:
        return "could_not_conclude", f"{facts.card.problem} Its fields were not checked."
    return "concluded", None


def _stored(facts: RepoFacts, hub: Hub, skips: list[Skip]) -> Stored | None:
    """The tensor table, from headers alone; None with a skip when there is none that can be read."""
    from scanner.stored import describe_table
    from scanner.weights.opening import open_source

    try:
        with open_source(facts, hub) as source:
            return describe_table(source.table.values(), facts.config)
    except HubAuditError as error:
        skips.append(Skip(what="tensor table", why=str(error)))
        return None
