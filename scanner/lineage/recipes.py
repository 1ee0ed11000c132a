"""Reads which models a merge recipe (mergekit's YAML) draws on."""

from collections.abc import Iterator
from typing import Any

from scanner.plain_yaml import BadYaml, load_mapping


def recipe_models(recipe_text: str, limit: int) -> list[str]:
    """The models that a recipe reads, in its order, ``limit`` at most; empty when it cannot be read."""
    try:
        recipe, _ = load_mapping(recipe_text)
    except BadYaml:
        return []
    return list(dict.fromkeys(_models_in(recipe)))[:limit]


def _models_in(value: Any) -> Iterator[str]:
    """Yield what stands under ``model`` and ``base_model`` anywhere in a recipe, its LoRA part cut off."""
    if isinstance(value, dict):
        for key in ("model", "base_model"):
            entry = value.get(key)
            entry = entry.get("path", entry.get("model")) if isinstance(entry, dict) else entry
            entry = entry.get("path") if isinstance(entry, dict) else entry
            if isinstance(entry, str) and entry.strip():
                yield entry.strip().partition("+")[0]
        for item in value.values():
            yield from _models_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _models_in(item)
