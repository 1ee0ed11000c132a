"""The rank and the targets of an adapter: what the card says against adapter_config.json and the factors' shapes."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from audit.card.plain import joined, short, words
from audit.card.prose import Prose, read_prose
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_RANK = re.compile(
    r"(?i)\b(?:q?(?:rs)?lora|dora)\b[^.\n]{0,40}?\b(?:rank|r)\s?(?:=|:|of|is)?\s?\(?(\d{1,4})\b"
    r"|\brank[- ](\d{1,4})\s(?:q?lora|dora|adapter)"
)
_RANK_FIELDS = ("lora r", "lora rank", "r", "lora rank (r)", "lora r (rank)", "lora dim", "lora config r")
_TARGET_FIELDS = ("target modules", "lora target modules", "lora target")
_MODULE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")
_SEVERAL = re.compile(r"(?i)\b(?:ranks|ablation|sweep|compar\w*|versus|vs|than|or|between|from|instead|alpha)\b")
_MERGED = "no adapter in this repository: a merged one does not show its rank"


def rank(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare "LoRA r=16" with ``r`` of adapter_config.json and the inner dimension of the factors."""
    prose = read_prose(evidence.candidate.card.text)
    said = _ranks(prose)
    config = evidence.candidate.adapter_config
    configured = _whole((config or {}).get("r"))
    stored = evidence.card_context.stored
    kept = stored.ranks if stored else ()
    if said:
        status, observed = _held_against(said, config, configured, kept)
        yield CardClaim(
            claim="adapter rank",
            declared=short(", ".join(map(str, sorted(said)))),
            observed=short(observed),
            status=status,
        )
    if configured is not None and kept:
        patterns = _patterned(config or {})
        allowed = {configured, *patterns}
        adaptive = (config or {}).get("peft_type") == "ADALORA"
        fits = set(kept) <= allowed or (adaptive and max(kept) <= max(allowed))
        yield CardClaim(
            claim="r (adapter_config.json)",
            declared=str(configured) + (f" and {len(patterns)} others by pattern" if patterns else ""),
            observed=f"the factors have rank {_list(kept)}",
            status="supported" if fits else "contradicted",
        )


def targets(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the modules that the card lists as LoRA targets with those that have factors, or are configured."""
    said = _targets(read_prose(evidence.candidate.card.text))
    if not said:
        return
    config = evidence.candidate.adapter_config
    stored = evidence.card_context.stored
    kept = set(stored.targets) if stored else set()
    listed = (config or {}).get("target_modules")
    configured = {name.rpartition(".")[2] for name in words(listed)} if isinstance(listed, list) else set()
    there, where = (kept, "with factors") if kept else (configured, "in adapter_config.json")
    status: ClaimStatus
    if config is None:
        observed, status = _MERGED, "not_checkable"
    elif not there:
        observed, status = "adapter_config.json lists no plain names, and no factor was read", "not_checkable"
    else:
        observed = f"{joined(tuple(sorted(there)))} ({where})"
        status = "supported" if said == there else "contradicted"
    yield CardClaim(claim="adapter targets", declared=joined(tuple(sorted(said))), observed=observed, status=status)


def _held_against(
    said: set[int], config: Mapping[str, Any] | None, configured: int | None, kept: tuple[int, ...]
) -> tuple[ClaimStatus, str]:
    if config is None:
        return "not_checkable", _MERGED
    if not kept and configured is None:
        return "not_checkable", "adapter_config.json gives no rank, and no factor was read"
    observed = f"the factors have rank {_list(kept)}" if kept else f"r = {configured} in adapter_config.json"
    if len(said) > 1:
        return "not_checkable", f"{observed}; the card names several ranks"
    there = set(kept) or {configured or 0}
    return ("supported" if said <= there else "contradicted"), observed


def _ranks(prose: Prose) -> set[int]:
    found: set[int] = set()
    for sentence in prose.sentences:
        matches = [int(m.group(1) or m.group(2)) for m in _RANK.finditer(sentence)]
        plain = re.sub(r"(?i)\b(?:lora_)?alpha\b", "", sentence)
        if matches and not _SEVERAL.search(plain):
            found.update(matches)
    for value in prose.named(*_RANK_FIELDS):
        match = re.fullmatch(r"(\d{1,4})[,;)]?", value.split("#")[0].strip())
        if match and "lora" in f"{prose.body}\n{prose.code}".lower():
            found.add(int(match.group(1)))
    return {r for r in found if r > 0}


def _targets(prose: Prose) -> set[str]:
    """Module names in a field; "all linear layers" and the like name none."""
    for value in prose.named(*_TARGET_FIELDS):
        names = re.findall(r"[A-Za-z0-9_.\-]+", value)
        if names and all(_MODULE.fullmatch(name) and ("_" in name or name in _PLAIN) for name in names):
            return set(names)
    # The list of a YAML block: "lora_target_modules:" and then one "- name" a line.
    block = re.search(
        r"(?m)^\s{0,8}(?:lora_)?target_modules:[ \t]*\n((?:[ \t]*- [A-Za-z0-9_]{1,40}[ \t]*\n?){1,40})", prose.code
    )
    return set(re.findall(r"- (\w+)", block.group(1))) if block else set()


_PLAIN = frozenset({"query", "key", "value", "dense", "fc1", "fc2", "wq", "wk", "wv", "wo", "w1", "w2", "w3"})


def _patterned(config: Mapping[str, Any]) -> set[int]:
    patterns = config.get("rank_pattern")
    values = patterns.values() if isinstance(patterns, Mapping) else ()
    return {whole for value in values if (whole := _whole(value)) is not None}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _list(ranks: tuple[int, ...]) -> str:
    return ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
