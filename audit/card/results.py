"""Published scores against each other: model-index, the card's own list of results, and ``.eval_results``.

Only running the model could check a score. What can be checked is whether the places agree, and whether a share is one.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from audit.card.plain import short
from audit.card.prose import read_prose
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_SHARES = frozenset({"accuracy", "f1", "precision", "recall", "exactmatch", "rocauc", "auc", "acc", "map", "em"})
"""Metrics that lie between 0 and 1, or 0 and 100."""
_MAX_RESULTS = 2_000
_BULLET = re.compile(r"(?m)^\s{0,4}[-*]\s+([A-Za-z][\w @.-]{0,40}?)\s*:\s*(-?\d{1,6}\.\d{1,8}|-?\d{1,6})\s*$")
_TRAINER = "achieves the following results on the evaluation set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One metric of model-index; ``value`` is None when it is no finite number. ``whose`` tells datasets apart."""

    whose: tuple[str, ...]
    dataset: str
    config: str
    metric: str
    name: str
    value: float | None


def results_of(evidence: Evidence) -> list[Result]:
    """The metrics in model-index that have the form of one; everything else there is left out."""
    index = (evidence.candidate.card.metadata or {}).get("model-index")
    found: list[Result] = []
    for entry in index if isinstance(index, list) else ():
        results = entry.get("results") if isinstance(entry, dict) else None
        for result in results if isinstance(results, list) else ():
            if isinstance(result, dict) and len(found) < _MAX_RESULTS:
                found += _metrics(result, _text(entry.get("name")))
    return found[:_MAX_RESULTS]


def scores(evidence: Evidence) -> Iterator[CardClaim]:
    """Count the declared results; only running the model on the data could check them."""
    index = (evidence.candidate.card.metadata or {}).get("model-index")
    count = sum(
        len(entry["results"])
        for entry in (index if isinstance(index, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("results"), list)
    )
    published = len(evidence.card_context.scores)
    parts = [f"{count} result{'s' if count > 1 else ''} in model-index"] if count else []
    parts += [f"{published} in .eval_results"] if published else []
    if parts:
        yield CardClaim(
            claim="evaluation results",
            declared=", ".join(parts),
            observed="the model was not run",
            status="not_checkable",
        )


def consistent(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the places where one and the same score stands."""
    results = results_of(evidence)
    compared, differing = 0, []
    for one, other, what in (*_within(results), *_in_text(evidence, results), *_published(evidence, results)):
        compared += 1
        if not _same(one, other, evidence.profile.value("card.score_tolerance")):
            differing.append(f"{what}: {one:g} and {other:g}")
    if compared:
        status: ClaimStatus = "contradicted" if differing else "supported"
        observed = f"{len(differing)} of {compared} differ: {'; '.join(differing[:3])}" if differing else "they agree"
        yield CardClaim(
            claim="scores agree",
            declared=f"{compared} score{'s' if compared > 1 else ''} given twice",
            observed=short(observed),
            status=status,
        )


def possible(evidence: Evidence) -> Iterator[CardClaim]:
    """Check that shares lie between 0 and 100."""
    shares = [r for r in results_of(evidence) if r.value is not None and metric_key(r.metric) in _SHARES]
    if not shares:
        return
    wrong = [
        f"{short(r.name or r.metric)} {r.value:g}" for r in shares if r.value is not None and not 0 <= r.value <= 100
    ]
    yield CardClaim(
        claim="scores possible",
        declared=f"{len(shares)} share{'s' if len(shares) > 1 else ''} in model-index",
        observed=short(f"outside 0 to 100: {', '.join(wrong[:5])}") if wrong else "between 0 and 100",
        status="contradicted" if wrong else "supported",
    )


def metric_key(text: str) -> str:
    """The name of a metric without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9@]", "", text.lower())


def _metrics(result: dict[str, object], model: str) -> Iterator[Result]:
    dataset, task = result.get("dataset"), result.get("task")
    data = dataset if isinstance(dataset, dict) else {}
    whose = tuple(_text(data.get(key)) for key in ("type", "name", "config", "split", "revision", "args"))
    metrics = result.get("metrics")
    for metric in metrics if isinstance(metrics, list) else ():
        if isinstance(metric, dict):
            yield Result(
                whose=(*whose, model, _text(task.get("type") if isinstance(task, dict) else None),
                       _text(metric.get("config")), _text(metric.get("args")),
                       "verified" * bool(metric.get("verified"))),
                config=_text(data.get("config")),
                dataset=_text(data.get("type")),
                metric=_text(metric.get("type")),
                name=_text(metric.get("name")),
                value=_number(metric.get("value")),
            )  # fmt: skip


def _within(results: list[Result]) -> Iterator[tuple[float, float, str]]:
    """The same metric of the same dataset, given twice in model-index."""
    seen: dict[tuple[object, ...], float] = {}
    for result in results:
        key = (result.whose, result.metric, result.name)
        if result.value is None or not result.metric or not result.dataset:
            continue
        if key in seen:
            yield seen[key], result.value, result.name or result.metric
        seen.setdefault(key, result.value)


def _in_text(evidence: Evidence, results: list[Result]) -> Iterator[tuple[float, float, str]]:
    """The list that the Trainer writes into the card, against the only result of that name."""
    text = read_prose(evidence.candidate.card.text).body
    start = text.find(_TRAINER)
    if start < 0:
        return
    listed = text[start : start + 3000].split("\n#", 1)[0]
    by_name: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        # The list is of the evaluation set; the index may be of the test set.
        if result.value is not None and "test" not in result.whose[3].lower():
            by_name[metric_key(result.name or result.metric)].append(result.value)
    for match in _BULLET.finditer(listed):
        values = by_name.get(metric_key(match.group(1)), [])
        if len(values) == 1:
            yield values[0], float(match.group(2)), match.group(1)


def _published(evidence: Evidence, results: list[Result]) -> Iterator[tuple[float, float, str]]:
    """``.eval_results`` against the only result of model-index for that dataset and task, and within one file.

    A dataset alone is not enough: the settings of an evaluation move its score.
    """
    by_task: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        if result.value is not None and result.dataset and result.config:
            by_task[result.dataset.lower(), result.config.lower()].append(result.value)
    seen: dict[tuple[str, str, str], float] = {}
    for score in evidence.card_context.scores:
        if score.value is None or not score.dataset:
            continue
        task = (score.dataset.lower(), score.task.lower())
        if (*task, score.file) in seen:
            yield seen[*task, score.file], score.value, score.dataset
        seen.setdefault((*task, score.file), score.value)
        values = by_task.get(task, [])
        if len(values) == 1:
            yield values[0], score.value, score.dataset


def _same(one: float, other: float, tolerance: float) -> bool:
    """Equal within the tolerance, as shares, as percentages, or one as each."""
    pairs = ((one, other), (one * 100, other), (one, other * 100))
    return any(abs(a - b) <= tolerance * max(1.0, min(100.0, abs(a), abs(b))) for a, b in pairs)


def _text(value: object) -> str:
    return short(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None
