"""Reads ``.eval_results/*.yaml``: the scores that a repository publishes beside its card, as plain bounded values.

The Hub's form is a list of entries ``{dataset: {id, task_id, …}, value, date, source, …}``. The files come from
strangers, so a file that is anything else becomes a ``Skip``.
"""

import math
from collections.abc import Mapping
from typing import Any

from scanner.card_context import PublishedScore
from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.plain_yaml import BadYaml, load_mapping
from scanner.records import RepoFacts, Skip

FOLDER = ".eval_results/"
MAX_FILES = 10
MAX_ENTRIES = 200
MAX_FILE_BYTES = 256 << 10
_CHARS = 200


def result_files(facts: RepoFacts) -> tuple[str, ...]:
    """The result files that the listing shows, sorted."""
    names = (entry.path for entry in facts.files)
    return tuple(sorted(n for n in names if n.startswith(FOLDER) and n.endswith((".yaml", ".yml"))))


def read_results(facts: RepoFacts, hub: Hub) -> tuple[tuple[PublishedScore, ...], tuple[Skip, ...]]:
    """Read at most ``MAX_FILES`` result files; one request each, none where there are none. Never raises.

    A file that cannot be read or used is a skip.
    """
    found: list[PublishedScore] = []
    skips: list[Skip] = []
    files = result_files(facts)
    for path in files[:MAX_FILES]:
        try:
            text = hub.read_text(facts.ref, path, limit_bytes=MAX_FILE_BYTES)
            found += parse_results(text, path)
        except HubAuditError as error:
            skips.append(Skip(what=path, why=str(error)))
        except BadYaml as error:
            skips.append(Skip(what=path, why=f"It {error}, so it was not used."))
    if len(files) > MAX_FILES:
        skips.append(Skip(what=f"{len(files) - MAX_FILES} more files of results", why=f"{MAX_FILES} are read."))
    return tuple(found[:MAX_ENTRIES]), tuple(skips)


def parse_results(text: str, path: str) -> tuple[PublishedScore, ...]:
    """Return the entries of one file, at most ``MAX_ENTRIES``.

    Raises:
        BadYaml: it is not YAML, or not a list of entries.
    """
    # The loader takes mappings alone; a list becomes one when it stands under a key, a level deeper.
    indented = "entries:\n" + "\n".join(f"  {line}" for line in text.removeprefix("\ufeff").splitlines())
    entries = load_mapping(indented)[0].get("entries")
    entries = [entries] if isinstance(entries, Mapping) else entries
    if not isinstance(entries, list):
        raise BadYaml("holds no list of results")
    return tuple(_entry(entry, path) for entry in entries[:MAX_ENTRIES] if isinstance(entry, Mapping))


def _entry(entry: Mapping[str, Any], path: str) -> PublishedScore:
    dataset = entry.get("dataset")
    named: Mapping[str, Any] = dataset if isinstance(dataset, Mapping) else {"id": dataset}
    return PublishedScore(
        dataset=_text(named.get("id")), task=_text(named.get("task_id")), value=number(entry.get("value")), file=path
    )


def number(value: object) -> float | None:
    """The value as a finite number, written as one or as text with or without a percent sign; else None."""
    if isinstance(value, str) and len(value) < _CHARS:
        try:
            value = float(value.strip().removesuffix("%"))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _text(value: object) -> str:
    return value.strip()[:_CHARS] if isinstance(value, str) else ""
