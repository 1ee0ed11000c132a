"""The number format: what config.json and the card say against what most parameters are stored in."""

import re
from collections.abc import Iterator

from audit.card.plain import short
from audit.card.prose import read_prose
from audit.card.stored import NOT_READ, kept_formats, kept_schemes
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_FORMATS = {
    "float64": "F64",
    "fp64": "F64",
    "float32": "F32",
    "fp32": "F32",
    "f32": "F32",
    "float16": "F16",
    "fp16": "F16",
    "f16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "bf16": "BF16",
}
_FIELDS = ("tensor type", "weights dtype", "weight dtype", "weights precision", "storage precision")
_WORD = re.compile(r"(?i)(?:torch\.)?([a-z]+\d\d)")


def configured(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the configuration's ``dtype`` with the format of most parameters."""
    config = evidence.candidate.config or {}
    declared = config.get("dtype") or config.get("torch_dtype")
    if isinstance(declared, str):
        yield _claim(evidence, "dtype (config.json)", declared, declared.removeprefix("torch."))


def written(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare what the card's text calls the tensors' type, where it names one and only one in prose or a table.

    Code is left out: there ``torch_dtype`` says how to load the model, not how it is stored.
    """
    prose = read_prose(evidence.candidate.card.text)
    in_code = set(prose.code.splitlines())
    values = [
        value
        for name, value in prose.fields
        if name in _FIELDS and not any(value in line for line in in_code) and "/" not in value and "," not in value
    ]
    found = {match.group(1).lower(): value for value in values if (match := _WORD.fullmatch(value.strip("\"' .")))}
    if len(found) == 1:
        name, declared = next(iter(found.items()))
        yield _claim(evidence, "dtype", declared, name)


def _claim(evidence: Evidence, claim: str, declared: str, word: str) -> CardClaim:
    stored = kept_formats(evidence)
    status: ClaimStatus
    if not stored:
        observed, status = NOT_READ, "not_checkable"
    elif word.lower() not in _FORMATS:
        observed, status = "not understood", "not_checkable"
    elif schemes := kept_schemes(evidence):
        observed, status = f"quantised ({', '.join(sorted(schemes)[:3])}): this is what it computes in", "not_checkable"
    else:
        most, count = stored.most_common(1)[0]
        share = count / max(1, sum(stored.values()))
        observed = most if share > 0.995 else f"{most} for {100 * share:.0f} % of the parameters"
        status = "supported" if most == _FORMATS[word.lower()] else "contradicted"
    return CardClaim(claim=claim, declared=short(declared), observed=short(observed), status=status)
