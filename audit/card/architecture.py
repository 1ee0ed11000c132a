"""Architecture, task and library: what card and configuration name against each other, the base and the files."""

import re
from collections.abc import Iterator

from audit.card.plain import short
from audit.card.prose import read_prose
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_TASKS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "text-generation": "ForCausalLM",
    "image-classification": "ForImageClassification",
}
_SAME_TASK = {
    "ForCausalLM": ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"),
    "ForMaskedLM": ("ForMaskedLM", "ForPreTraining", "LMHeadModel"),
}
_GENERATIVE = ("ForConditionalGeneration", "ForCausalLM", "LMHeadModel")
_GENERATED = frozenset({"text-classification", "token-classification", "question-answering"})
"""Tasks that a model may do by writing the answer."""
_CLASS = re.compile(r"[A-Z][A-Za-z0-9_]{2,60}(?:For[A-Z][A-Za-z]{3,40}|LMHeadModel|Model)")


def task(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the card's task with the configured architecture."""
    architectures = _architectures(evidence)
    declared = (evidence.candidate.card.metadata or {}).get("pipeline_tag")
    suffix = _TASKS.get(declared) if isinstance(declared, str) else None
    if suffix and architectures:
        fits = any(name.endswith(_SAME_TASK.get(suffix, (suffix,))) for name in architectures)
        # A headless or custom class says nothing of the task: the head may be put on by the code that loads it.
        plain = all(name.endswith("Model") and not name.endswith("LMHeadModel") for name in architectures)
        generative = declared in _GENERATED and all(name.endswith(_GENERATIVE) for name in architectures)
        custom = bool((evidence.candidate.config or {}).get("auto_map"))
        status: ClaimStatus = (
            "supported" if fits else "not_checkable" if plain or custom or generative else "contradicted"
        )
        yield CardClaim(
            claim="pipeline_tag",
            declared=short(str(declared)),
            observed=short(", ".join(architectures)),
            status=status,
        )


def family(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the configured ``model_type`` with the base's."""
    mine = (evidence.candidate.config or {}).get("model_type")
    theirs = ((evidence.base.config if evidence.base else None) or {}).get("model_type")
    if isinstance(mine, str) and isinstance(theirs, str) and mine and theirs:
        yield CardClaim(
            claim="model_type (config.json)",
            declared=short(mine),
            observed=f"the base's is {short(theirs)}",
            status="supported" if mine == theirs else "contradicted",
        )


def named_class(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare a class that the card gives as its architecture ("Architecture: LlamaForCausalLM") with the configured.

    Any other wording of an architecture is free text, and makes no row.
    """
    values = read_prose(evidence.candidate.card.text).named("architecture", "architectures", "model class")
    named = {value.strip("\"'[] .") for value in values}
    named = {value for value in named if _CLASS.fullmatch(value)}
    if len(named) != 1:
        return
    declared, architectures = next(iter(named)), _architectures(evidence)
    status: ClaimStatus = "not_checkable"
    if architectures:
        status = "supported" if declared in architectures else "contradicted"
    observed = ", ".join(architectures) or "config.json names no architecture"
    yield CardClaim(claim="architecture", declared=short(declared), observed=short(observed), status=status)


def library(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare ``library_name`` with the files; only libraries that cannot do without one particular file can fail."""
    declared = (evidence.candidate.card.metadata or {}).get("library_name")
    if not isinstance(declared, str) or not declared.strip() or not evidence.candidate.files:
        return
    paths = {entry.path for entry in evidence.candidate.files}
    names = {path.rpartition("/")[2] for path in paths}
    status: ClaimStatus = "not_checkable"
    match declared.strip().lower():
        case "peft":
            there, what = "adapter_config.json" in names, "adapter_config.json"
            status = "supported" if there else "contradicted"
        case "gguf":
            there, what = any(path.endswith(".gguf") for path in paths), "GGUF files"
            status = "supported" if there else "contradicted"
        case "transformers":
            there, what = bool(names & {"config.json", "adapter_config.json"}), "config.json"
            status = "supported" if there else "not_checkable"
        case "sentence-transformers":
            there, what = "modules.json" in names, "modules.json"
            status = "supported" if there else "not_checkable"
        case "diffusers":
            there, what = "model_index.json" in names, "model_index.json"
            status = "supported" if there else "not_checkable"
        case _:
            there, what = False, "files that would tell this library"
    observed = f"{what}: {'found' if there else 'none found'}"
    yield CardClaim(claim="library_name", declared=short(declared), observed=observed, status=status)


def _architectures(evidence: Evidence) -> list[str]:
    names = (evidence.candidate.config or {}).get("architectures")
    return [short(n) for n in names if isinstance(n, str)] if isinstance(names, list) else []
