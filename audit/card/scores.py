"""Evaluation results that the card declares: named, and left open, since reading weights cannot check them."""

from collections.abc import Iterator

from audit.evidence import Evidence
from audit.records import CardClaim


def scores(evidence: Evidence) -> Iterator[CardClaim]:
    """Count the results under ``model-index``; only running the model on the data could check them."""
    index = (evidence.candidate.card.metadata or {}).get("model-index")
    entries = index if isinstance(index, list) else []
    results = [
        result
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("results"), list)
        for result in entry["results"]
    ]
    if results:
        yield CardClaim(
            claim="evaluation results",
            declared=f"{len(results)} result{'s' if len(results) > 1 else ''} in model-index",
            observed="the model was not run",
            status="not_checkable",
        )
