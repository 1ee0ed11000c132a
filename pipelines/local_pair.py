"""What the weights of two local folders, a model and its base, tell the probe: which tokens to try, what they meant."""

from collections.abc import Container
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from audit.suspects import suspects
from scanner.alignment import align
from scanner.drift.measure import measure
from scanner.errors import HubAuditError
from scanner.facts import collect
from scanner.hub import Hub
from scanner.meanings import base_meanings
from scanner.records import F32, DriftFacts, RepoFacts, RepoRef
from scanner.tokens import read_pair_tokens
from scanner.weights.opening import open_source

_TABLES = frozenset({"embedding", "unembedding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointers:
    """``suspects`` are vocabulary ids, most suspect first; ``meant`` as ``scanner.meanings.base_meanings`` has it."""

    suspects: tuple[int, ...] = ()
    meant: F32 | None = None


def drift_between(
    candidate: RepoFacts, base: RepoFacts, *, roles: Container[str] | None = None, threads: int = 1
) -> DriftFacts:
    """The drift between two local folders, of the tensors of some roles or of all.

    Raises:
        HubAuditError: either cannot be read.
    """
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(open_source(facts, None)) for facts in (candidate, base))
        whole = align(ours.table, theirs.table, candidate_config=candidate.config, base_config=base.config)
        pairs = tuple(pair for pair in whole.pairs if roles is None or pair.role in roles)
        return measure(replace(whole, pairs=pairs), theirs, ours, threads=threads)


def pointers(candidate: Path, base: Path | None) -> Pointers:
    """Compare the token tables of two folders; nothing is told of what cannot be read, and without a base."""
    if base is None:
        return Pointers()
    hub = Hub()  # folders need no network: the reader makes no request until it is asked for one
    try:
        ours, theirs = (collect(RepoRef(path=str(folder)), hub) for folder in (candidate, base))
        tokens = read_pair_tokens(ours, theirs, hub)
        moved = drift_between(ours, theirs, roles=_TABLES)
        return Pointers(suspects=suspects(moved, tokens), meant=base_meanings(tokens, theirs, hub))
    except HubAuditError:
        return Pointers()
