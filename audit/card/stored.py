"""What the checkpoint holds, from the comparison where there was one and else from its headers."""

from collections import Counter

from audit.evidence import Evidence

NOT_READ = "the weights were not read"


def kept_parameters(evidence: Evidence) -> tuple[int | None, str]:
    """Return the parameters of the checkpoint, or None and why a size cannot be held against them."""
    stored = evidence.card_context.stored
    if evidence.candidate.adapter_config is not None or (stored and stored.adapter):
        return None, "an adapter: the size is that of the model it is put on"
    if stored and stored.parameters:
        return stored.parameters, ""
    total = evidence.drift.coverage.parameters_total if evidence.drift else 0
    return (total, "") if total else (None, NOT_READ)


def kept_formats(evidence: Evidence) -> Counter[str]:
    """Elements by safetensors dtype; empty when nothing is known."""
    if evidence.card_context.stored:
        return Counter(evidence.card_context.stored.dtypes)
    found: Counter[str] = Counter()
    for tensor in evidence.drift.tensors if evidence.drift else ():
        found[tensor.spec.candidate.dtype] += tensor.count
    return found


def kept_schemes(evidence: Evidence) -> Counter[str]:
    """Elements by quantiser; empty for plain checkpoints and when nothing is known."""
    if evidence.card_context.stored:
        return Counter(evidence.card_context.stored.schemes)
    found: Counter[str] = Counter()
    for tensor in evidence.drift.tensors if evidence.drift else ():
        if tensor.spec.candidate.scheme:
            found[tensor.spec.candidate.scheme] += tensor.count
    return found


def token_rows(evidence: Evidence) -> tuple[str, int] | None:
    """The token table as (name, rows)."""
    tables = [t for t in (evidence.drift.tensors if evidence.drift else ()) if t.spec.role == "embedding"]
    if tables:
        return tables[0].spec.name, tables[0].spec.shape[0]
    return evidence.card_context.stored.token_rows if evidence.card_context.stored else None
