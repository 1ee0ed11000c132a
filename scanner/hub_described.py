"""What the Hub's API says about a repository, brought into one bounded shape.

The answers are typed loosely and partly undocumented (``baseModels`` comes as a list or as an object), and tags are
written by strangers, so every value is checked and cut before it goes on.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from huggingface_hub.hf_api import ModelInfo, RepoFile

from scanner.records import FileEntry
from scanner.weights.dtypes import ELEMENT_TYPES

MAX_TAGS = 1000
MAX_BASE_MODELS = 100
MAX_ISSUES = 1000
MAX_CHARS = 300
MAX_PARAMETERS = 10**15
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


def is_commit(value: object) -> bool:
    """Whether a value is a full commit hash: 40 lower-case hexadecimal digits."""
    return isinstance(value, str) and _COMMIT.fullmatch(value) is not None


def described(info: ModelInfo, security: object = None) -> dict[str, Any]:
    """Return the keys that ``scanner.hub.Hub.describe`` documents, and ``id``; what the answer lacks is None."""
    base_models, relation = _bases(info.base_models)
    return {
        "id": _text(info.id),
        "sha": info.sha if is_commit(info.sha) else None,
        "author": _text(info.author),
        "tags": _texts(info.tags, MAX_TAGS),
        "base_models": base_models,
        "relation": relation,
        "gated": info.gated if info.gated in {"auto", "manual"} else bool(info.gated),
        "private": bool(info.private),
        "disabled": bool(info.disabled),
        "downloads": info.downloads if isinstance(info.downloads, int) else None,
        "likes": info.likes if isinstance(info.likes, int) else None,
        "created_at": iso(info.created_at),
        "last_modified": iso(info.last_modified),
        "library_name": _text(info.library_name),
        "pipeline_tag": _text(info.pipeline_tag),
        "weights_bytes": _weights_bytes(info.safetensors),
        "security": _security(security),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitEntry:
    """One commit: its hash, its title, and its date as the Hub writes it (ISO 8601)."""

    commit: str
    title: str
    created_at: str


def commit_of(item: Mapping[str, Any]) -> CommitEntry:
    """Return one commit of a history.

    Raises:
        KeyError, ValueError: the item is not a commit.
    """
    if not is_commit(item["id"]):
        raise ValueError("a commit without a hash")
    return CommitEntry(commit=item["id"], title=_cut(str(item["title"])), created_at=_cut(str(item["date"])))


def entry_of(item: RepoFile) -> FileEntry:
    """Return one listed file; ``sha256`` is what the uploader declared.

    Raises:
        ValueError: its size is not a number of bytes.
    """
    if not isinstance(item.size, int) or item.size < 0:
        raise ValueError("a file without a size")
    return FileEntry(
        path=item.path,
        size_bytes=item.size,
        sha256=item.lfs.sha256 if item.lfs else None,
        xet_hash=item.xet_hash,
        blob_id=item.blob_id,
    )


def iso(moment: datetime | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(moment, datetime) else None


def _bases(value: object) -> tuple[tuple[str, ...], str | None]:
    """Read ``baseModels``: ``{"relation": ..., "models": [{"id": ...}]}``, or a plain list of ids."""
    relation = None
    if isinstance(value, Mapping):
        relation, value = _text(value.get("relation")), value.get("models")
    items = value if isinstance(value, list) else []
    return _texts((item.get("id") if isinstance(item, Mapping) else item for item in items), MAX_BASE_MODELS), relation


def _weights_bytes(value: object) -> int | None:
    """Read ``safetensors``: parameters by element type, as bytes. None where the Hub counts none."""
    counts = getattr(value, "parameters", None)
    if not isinstance(counts, Mapping) or not counts:
        return None
    bits = (
        ELEMENT_TYPES[kind].bits * count
        for kind, count in counts.items()
        if kind in ELEMENT_TYPES and isinstance(count, int) and 0 <= count < MAX_PARAMETERS
    )
    return sum(bits) // 8 or None


def _security(value: object) -> dict[str, Any] | None:
    """Read ``securityRepoStatus``: whether the Hub has finished its scan, and the files it complains about."""
    if not isinstance(value, Mapping):
        return None
    listed = value.get("filesWithIssues")
    issues = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    return {
        "done": value.get("scansDone") is True,
        "issues": tuple(
            {"path": _text(item.get("path")), "level": _text(item.get("level"))} for item in issues[:MAX_ISSUES]
        ),
    }


def _texts(values: object, limit: int) -> tuple[str, ...]:
    found: list[str] = []
    for value in values if isinstance(values, Iterable) and not isinstance(values, str) else ():
        if len(found) == limit:
            break
        if isinstance(value, str):
            found.append(_cut(value))
    return tuple(found)


def _text(value: object) -> str | None:
    return _cut(value) if isinstance(value, str) else None


def _cut(text: str) -> str:
    """At most ``MAX_CHARS`` characters, and none that UTF-8 cannot write (JSON can spell half a character)."""
    return text[:MAX_CHARS].encode("utf-8", "replace").decode()
