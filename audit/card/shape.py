"""Size, number format, architecture and vocabulary: declared in card and configuration, observed in the weights."""

import re
from collections import Counter
from collections.abc import Iterator

from audit.card.plain import short
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_SIZE = re.compile(
    r"(?<![\w.])(\d{1,4}(?:[.,]\d{1,3})?)\s{0,2}(million|billion|[MB])[\s-]{1,2}(?:\w{1,12}\s)?param", re.IGNORECASE
)
_UNITS = {"m": 1e6, "million": 1e6, "b": 1e9, "billion": 1e9}
_SEARCHED = 200_000
"""Characters of the card that are searched for a size."""

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_TASKS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "text-generation": "ForCausalLM",
    "image-classification": "ForImageClassification",
}
_SAME_TASK = {"ForCausalLM": ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")}


def parameters(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare "N million parameters" in the card's text with the count of the weights.

    A card that names several sizes speaks of a family, and cannot be checked.
    """
    text = (evidence.candidate.card.text or "")[:_SEARCHED]
    sizes = {
        float(match.group(1).replace(",", ".")) * _UNITS[match.group(2).lower()]: match.group(0)
        for match in _SIZE.finditer(text)
    }
    if not sizes:
        return
    declared = short(", ".join(f"{size:,.0f}" for size in sorted(sizes)))
    total = evidence.drift.coverage.parameters_total if evidence.drift else 0
    status: ClaimStatus
    if not total:
        observed, status = "the weights were not read", "not_checkable"
    elif len(sizes) > 1:
        observed, status = f"{total:,}; the card names several sizes", "not_checkable"
    else:
        tolerance = evidence.profile.value("card.parameters_tolerance")
        near = abs(total / next(iter(sizes)) - 1.0) <= tolerance
        observed, status = f"{total:,}", "supported" if near else "contradicted"
    yield CardClaim(claim="parameters", declared=declared, observed=observed, status=status)


def dtype(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the configuration's ``dtype`` with the format that most parameters are stored in."""
    config = evidence.candidate.config or {}
    declared = config.get("dtype") or config.get("torch_dtype")
    if not isinstance(declared, str):
        return
    name = declared.removeprefix("torch.")
    stored: Counter[str] = Counter()
    for tensor in evidence.drift.tensors if evidence.drift else ():
        stored[tensor.spec.candidate.dtype] += tensor.count
    status: ClaimStatus
    if name not in _DTYPES or not stored:
        observed, status = "not understood" if stored else "the weights were not read", "not_checkable"
    else:
        most = stored.most_common(1)[0][0]
        observed, status = most, "supported" if most == _DTYPES[name] else "contradicted"
    yield CardClaim(claim="dtype (config.json)", declared=short(declared), observed=observed, status=status)


def architecture(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the card's task with the architecture, and the architecture's family with the base's."""
    config = evidence.candidate.config or {}
    names = config.get("architectures")
    architectures = [short(n) for n in names if isinstance(n, str)] if isinstance(names, list) else []
    task = (evidence.candidate.card.metadata or {}).get("pipeline_tag")
    suffix = _TASKS.get(task) if isinstance(task, str) else None
    if suffix and architectures:
        fits = any(name.endswith(_SAME_TASK.get(suffix, (suffix,))) for name in architectures)
        yield CardClaim(
            claim="pipeline_tag",
            declared=short(str(task)),
            observed=short(", ".join(architectures)),
            status="supported" if fits else "contradicted",
        )
    mine, theirs = (
        value if isinstance(value, str) else None
        for value in (
            config.get("model_type"),
            ((evidence.base.config if evidence.base else None) or {}).get("model_type"),
        )
    )
    if mine and theirs:
        yield CardClaim(
            claim="model_type (config.json)",
            declared=short(mine),
            observed=f"the base's is {short(theirs)}",
            status="supported" if mine == theirs else "contradicted",
        )


def vocabulary(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the configuration's vocabulary size with the token table, and name added tokens."""
    declared = (evidence.candidate.config or {}).get("vocab_size")
    if isinstance(declared, bool) or not isinstance(declared, int):
        return
    tables = [t for t in (evidence.drift.tensors if evidence.drift else ()) if t.spec.role == "embedding"]
    if not tables:
        yield CardClaim(
            claim="vocab_size (config.json)",
            declared=str(declared),
            observed="no token table was compared",
            status="not_checkable",
        )
        return
    rows = tables[0].spec.shape[0]
    added = evidence.drift.added_rows.get(tables[0].spec.name) if evidence.drift else None
    observed = f"{rows} rows in {short(tables[0].spec.name)}"
    if added:
        observed += f", {added[1] - added[0]} of them added to the base's"
    if evidence.tokens is not None and len(evidence.tokens.texts) > rows:
        observed += f"; the tokenizer has {len(evidence.tokens.texts)} tokens, more than there are rows"
        yield CardClaim(
            claim="vocab_size (config.json)", declared=str(declared), observed=observed, status="contradicted"
        )
        return
    yield CardClaim(
        claim="vocab_size (config.json)",
        declared=str(declared),
        observed=observed,
        status="supported" if rows == declared else "contradicted",
    )
