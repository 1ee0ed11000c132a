"""Choose among the GGUF files of a repository, which often holds one model in a dozen precisions."""

import re
from collections.abc import Collection
from typing import Final

from scanner.records import Skip
from scanner.weights.strict_json import name_some

SUFFIX: Final = ".gguf"
PREFERRED: Final = "q4_k_m"
"""What llama.cpp and its relatives load from a repository when nothing else is asked for (``-hf``, README of
llama.cpp: "default to Q4_K_M, or falls back to the first file in the repo")."""

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.ASCII)
_BESIDES: Final = re.compile(r"mmproj|imatrix|(^|[-_./])vocab|(^|[-_./])lora", re.IGNORECASE)
"""Files beside the model: projectors of images, importance matrices, vocabularies, adapters."""


def is_beside(path: str) -> bool:
    """Whether a GGUF file lies beside the model and is none: a projector, an importance matrix, an adapter."""
    return _BESIDES.search(path) is not None


def is_later_part(path: str) -> bool:
    """Whether a file is the second or a later part of a split model; the first holds what describes it."""
    part = _PART.fullmatch(path)
    return part is not None and int(part["part"]) > 1


def choose_gguf(paths: Collection[str]) -> tuple[tuple[str, ...], tuple[Skip, ...]]:
    """The files of the one model to read, in order, and what to say about the choice; empty without any.

    A model that is split is chosen whole; parts that are missing are named in the skips.
    """
    models: dict[str, list[str]] = {}
    for path in sorted(paths):
        if path.endswith(SUFFIX) and not _BESIDES.search(path):
            part = _PART.fullmatch(path)
            models.setdefault(part["stem"] if part else path, []).append(path)
    if not models:
        return (), ()
    chosen = next((stem for stem in models if PREFERRED in stem.lower()), next(iter(models)))
    files = tuple(models[chosen])
    skips = _missing_parts(files)
    if len(models) > 1:
        others = [files[0] for stem, files in models.items() if stem != chosen]
        why = f"one of {len(models)} GGUF models here; {files[0]} was read, which loaders pick by themselves"
        skips = (*skips, Skip(what=name_some(others), why=why))
    return files, skips


def _missing_parts(files: tuple[str, ...]) -> tuple[Skip, ...]:
    first = _PART.fullmatch(files[0])
    if first is None:
        return ()
    there = {int(part["part"]) for part in map(_PART.fullmatch, files) if part}
    lost = [number for number in range(1, min(int(first["parts"]), 99_999) + 1) if number not in there]
    if not lost:
        return ()
    what = f"{len(lost)} of {int(first['parts'])} parts of {first['stem']}{SUFFIX}"
    return (Skip(what=what, why="the file is split and these parts are not there"),)
