"""What the weights of two local folders, a model and its base, tell the probe: which tokens to try, what they meant."""

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
from scanner.records import F32, RepoRef
from scanner.tokens import read_pair_tokens
from scanner.weights.opening import open_source

_TABLES = frozenset({"embedding", "unembedding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointers:
    """``suspects`` are vocabulary ids, most suspect first; ``meant`` as ``scanner.meanings.base_meanings`` has it."""

    suspects: tuple[int, ...] = ()
    meant: F32 | None = None


def pointers(candidate: Path, base: Path | None) -> Pointers:
    """Compare the token tables of two folders; nothing is told of what cannot be read, and without a base."""
    if base is None:
        return Pointers()
    hub = Hub()  # folders need no network: the reader makes no request until it is asked for one
    try:
        ours, theirs = (collect(RepoRef(path=str(folder)), hub) for folder in (candidate, base))
        tokens = read_pair_tokens(ours, theirs, hub)
        with ExitStack() as stack:
            source, old = (stack.enter_context(open_source(facts, None)) for facts in (ours, theirs))
            whole = align(source.table, old.table, candidate_config=ours.config, base_config=theirs.config)
            tables = replace(whole, pairs=tuple(pair for pair in whole.pairs if pair.role in _TABLES))
            moved = measure(tables, old, source, threads=1) if tables.pairs else None
        return Pointers(suspects=suspects(moved, tokens), meant=base_meanings(tokens, theirs, hub))
    except HubAuditError:
        return Pointers()
