"""What the Hub derives from a repository's files, so that fixtures cannot disagree with themselves."""

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from localhub.blobs import Entry

HEADER_LIMIT_BYTES = 25_000_000
REPO_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
Tree = Mapping[str, Entry]


def front_matter(text: str) -> str | None:
    """Return the YAML between the first two lines that are exactly ``---``, None without them."""
    lines = text.lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    return None if end is None else "\n".join(lines[1:end])


def check_card(text: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings that the Hub has about a model card."""
    source = front_matter(text)
    if source is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        metadata = yaml.safe_load(source)
    except (yaml.YAMLError, ValueError) as error:
        return [f"YAML Metadata Error: {error}"], []
    if metadata is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(metadata, dict):
        return ["YAML Metadata Error: metadata should be an object"], []
    errors = [
        f'"{key}" must be a string or a list of strings'
        for key in ("license", "base_model", "tags", "language")
        if not _is_text_or_texts(metadata.get(key, ""))
    ]
    return errors, []


def _is_text_or_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def card_data(tree: Tree) -> Mapping[str, Any]:
    """Return the metadata of ``README.md``; empty when there is none that can be read."""
    readme = tree.get("README.md")
    return _metadata(readme) if readme else {}


# Listings look at every card of the server, so each is parsed once; the same holds for weight headers.
@lru_cache(maxsize=4096)
def _metadata(readme: Entry) -> Mapping[str, Any]:
    source = front_matter(readme.read().decode("utf-8", "replace"))
    try:
        metadata = yaml.safe_load(source) if source else None
        # The API sends JSON, which has no form for a date or a set; neither does the Hub.
        plain = json.loads(json.dumps(metadata, default=str)) if isinstance(metadata, dict) else {}
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def base_models(card: Mapping[str, Any]) -> list[str]:
    """Return the declared bases that are texts, as written."""
    declared = card.get("base_model")
    names = declared if isinstance(declared, list) else [declared]
    return [name for name in names if isinstance(name, str) and name]


def relation(card: Mapping[str, Any], tree: Tree) -> str:
    """Return the relation to the base: as declared, else inferred from the files."""
    declared = card.get("base_model_relation")
    if isinstance(declared, str) and declared:
        return declared
    if len(base_models(card)) > 1:
        return "merge"
    if "adapter_config.json" in tree:
        return "adapter"
    if any(path.endswith(".gguf") for path in tree) or "quantization_config" in config(tree):
        return "quantized"
    return "finetune"


def tags(card: Mapping[str, Any], tree: Tree) -> list[str]:
    """Return the tags, in order and without repeats; ``base_model:`` tags are what listings filter by."""
    declared = card.get("tags")
    found = [tag for tag in declared if isinstance(tag, str)] if isinstance(declared, list) else []
    found += [card[key] for key in ("library_name", "pipeline_tag") if isinstance(card.get(key), str)]
    if any(path.endswith(".safetensors") for path in tree):
        found.append("safetensors")
    if isinstance(card.get("license"), str):
        found.append(f"license:{card['license']}")
    if isinstance(kind := config(tree).get("model_type"), str):
        found.append(kind)
    bases = base_models(card)
    found += [f"base_model:{name}" for name in bases]
    found += [f"base_model:{relation(card, tree)}:{name}" for name in bases]
    return list(dict.fromkeys(found))


def config(tree: Tree) -> dict[str, Any]:
    """Return the part of ``config.json`` that the API shows."""
    shown = _json_object(tree.get("config.json"))
    keys = ("architectures", "model_type", "quantization_config", "auto_map")
    return {key: shown[key] for key in keys if key in shown}


@lru_cache(maxsize=512)
def safetensors_header(entry: Entry) -> Mapping[str, Any] | None:
    """Return the header of a safetensors file, None when it is not one."""
    length = int.from_bytes(entry.content.read(0, 8), "little")
    if entry.size < 8 or length > min(entry.size - 8, HEADER_LIMIT_BYTES):
        return None
    try:
        header = json.loads(entry.content.read(8, 8 + length))
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def shards(index: Entry) -> list[str]:
    """Return the files that a shard index names, sorted."""
    weight_map = _json_object(index).get("weight_map")
    return (
        sorted({name for name in weight_map.values() if isinstance(name, str)}) if isinstance(weight_map, dict) else []
    )


def parameters(tree: Tree) -> dict[str, Any] | None:
    """Return the parameter counts by dtype, from the two file names that the client itself knows."""
    if "model.safetensors" in tree:
        names = ["model.safetensors"]
    elif "model.safetensors.index.json" in tree:
        names = [name for name in shards(tree["model.safetensors.index.json"]) if name in tree]
    else:
        return None
    counts: dict[str, int] = {}
    for name in names:
        for tensor, facts in (safetensors_header(tree[name]) or {}).items():
            if tensor == "__metadata__":
                continue
            try:
                counts[facts["dtype"]] = counts.get(facts["dtype"], 0) + math.prod(facts["shape"])
            except (KeyError, TypeError):
                return None
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def _json_object(entry: Entry | None) -> dict[str, Any]:
    try:
        value = json.loads(entry.read()) if entry else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
