"""Asks the Hub whether the datasets that a card declares exist: a few of them, and never in the way of the rest."""

from collections.abc import Mapping
from typing import Any

from scanner.card_context import Existence
from scanner.errors import HubAuditError, RepoGated, RepoNotFound
from scanner.hub import Hub
from scanner.records import RepoFacts
from scanner.refs import as_repo_id

MAX_DATASETS = 10
"""Datasets that are looked up; longer lists are mixtures, whose other members stay unasked."""


def look_up_datasets(facts: RepoFacts, hub: Hub) -> dict[str, Existence]:
    """Ask the Hub for the datasets that a card declares; one request each, at most ``MAX_DATASETS``. Never raises."""
    found: dict[str, Existence] = {}
    for name in declared_datasets(facts.card.metadata)[:MAX_DATASETS]:
        try:
            found[name] = "found" if hub.has_dataset(name) else "missing"
        except RepoGated:
            found[name] = "gated"
        except RepoNotFound:
            found[name] = "missing"
        except HubAuditError:
            # Offline or refused: asking for the others would only cost the same time again.
            found[name] = "unknown"
            break
    return found


def declared_datasets(metadata: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names under ``datasets`` that can be repositories, each once, in the card's order."""
    declared = (metadata or {}).get("datasets")
    entries = declared if isinstance(declared, list) else [declared]
    names = (entry.strip() for entry in entries if isinstance(entry, str))
    return tuple(dict.fromkeys(name for name in names if as_repo_id(name) == name))
