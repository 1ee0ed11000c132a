"""Declared datasets and metrics: whether the datasets exist on the Hub, and whether the metrics have results."""

from collections.abc import Iterator

from audit.card.plain import joined, words
from audit.card.results import metric_key, results_of
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus
from scanner.card_context import Existence

_SAID: dict[Existence, str] = {
    "found": "found on the Hub",
    "gated": "found on the Hub, behind terms",
    "missing": "not on the Hub, or private",
    "unknown": "could not be asked",
}


def datasets(evidence: Evidence) -> Iterator[CardClaim]:
    """Say of the declared datasets which exist; private ones look like missing ones, so nothing is contradicted.

    That a dataset exists does not show that the model was trained on it.
    """
    declared = words((evidence.candidate.card.metadata or {}).get("datasets"))
    if not declared:
        return
    asked = evidence.card_context.datasets
    answers = {name: asked[name] for name in declared if name in asked}
    parts = [
        f"{said}: {joined(tuple(names))}"
        for kind, said in _SAID.items()
        if (names := [name for name, answer in answers.items() if answer == kind])
    ]
    unasked = [name for name in declared if name not in asked]
    if not answers:
        parts = ["not looked up: `hubaudit card` asks the Hub"]
    elif unasked:
        parts.append(f"not looked up: {len(unasked)}")
    whole = len(answers) == len(declared) and all(answer in {"found", "gated"} for answer in answers.values())
    status: ClaimStatus = "supported" if whole else "not_checkable"
    yield CardClaim(claim="datasets", declared=joined(declared), observed="; ".join(parts), status=status)


def metrics(evidence: Evidence) -> Iterator[CardClaim]:
    """Say for which of the declared metrics the card gives a result."""
    declared = words((evidence.candidate.card.metadata or {}).get("metrics"))
    if not declared:
        return
    given = {metric_key(text) for result in results_of(evidence) for text in (result.metric, result.name)}
    without = tuple(name for name in declared if metric_key(name) not in given)
    status: ClaimStatus = "supported" if not without else "not_checkable"
    observed = "a result is given for each" if not without else f"model-index has no result for: {joined(without)}"
    yield CardClaim(claim="metrics", declared=joined(declared), observed=observed, status=status)
