"""The small files and the listing of one pinned repository, as one bundle of facts.

A small file that cannot be used (too large, not JSON, vanished, forbidden) becomes a ``Skip``. A repository that
cannot be read at all (gated, private, gone, unreachable) is an error: facts with holes that the network tore would
pass for a repository that declares nothing.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scanner.card import parse_card
from scanner.config_json import BadConfig, parse_object
from scanner.errors import (
    HubRateLimited,
    RepoGated,
    RepoNotFound,
    RepoUnavailable,
    RevisionNotFound,
)
from scanner.hub import Hub
from scanner.paths import is_plain_path, shown
from scanner.records import CardFacts, FileEntry, RepoFacts, RepoRef, Skip

LIMIT_BYTES: Mapping[str, int] = {
    "README.md": 5 << 20,
    "config.json": 4 << 20,  # label maps of 100,000 classes take about 3 MB
    "adapter_config.json": 1 << 20,
    "generation_config.json": 1 << 20,
    "mergekit_config.yml": 1 << 20,
}
"""What is read of each small file, in bytes; larger ones are skipped."""
MAX_NAMED_SKIPS = 20
"""Unusable file names that get a line of their own."""
_AT_ONCE = 4
_WHOLE_REPO = (RepoGated, RepoNotFound, RevisionNotFound, HubRateLimited)


def collect(ref: RepoRef, hub: Hub) -> RepoFacts:
    """Read the listing, what the Hub says, and the small files that the listing shows.

    Three requests (two after ``Hub.resolve`` knows the repository already, none for folders) and one for each small
    file that exists; ``_AT_ONCE`` at a time.

    Raises:
        RepoUnavailable: the repository is gated, private, gone, or the quota is used up.
        HubUnreachable: the network or the Hub failed.
        CouldNotConclude: the listing is too long.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="facts") as pool:
        describing = pool.submit(hub.describe, ref)
        files, skips = _plain_files(hub.files(ref))
        reading = {entry.path: pool.submit(_read, ref, entry, hub) for entry in files if entry.path in LIMIT_BYTES}
        texts: dict[str, str] = {}
        for path, future in reading.items():
            outcome = future.result()
            if isinstance(outcome, Skip):
                skips.append(outcome)
            else:
                texts[path] = outcome
        described = describing.result()
    return RepoFacts(
        ref=ref,
        files=files,
        card=parse_card(texts["README.md"]) if "README.md" in texts else CardFacts(),
        config=_object(texts, "config.json", skips),
        adapter_config=_object(texts, "adapter_config.json", skips),
        generation_config=_object(texts, "generation_config.json", skips),
        mergekit_config=texts.get("mergekit_config.yml"),
        hub=described,
        skips=tuple(skips),
    )


def _plain_files(listed: tuple[FileEntry, ...]) -> tuple[tuple[FileEntry, ...], list[Skip]]:
    """Part the files with usable names from the others; the first of the latter get a skip each, the rest one."""
    odd = [entry.path for entry in listed if not is_plain_path(entry.path)]
    why = "The file name is not a plain relative path, so the file was not read."
    skips = [Skip(what=shown(path), why=why) for path in odd[:MAX_NAMED_SKIPS]]
    if len(odd) > MAX_NAMED_SKIPS:
        more = f"{len(odd) - MAX_NAMED_SKIPS} more files"
        skips.append(Skip(what=more, why="Their names are not plain relative paths, so they were not read."))
    return tuple(entry for entry in listed if is_plain_path(entry.path)), skips


def _read(ref: RepoRef, entry: FileEntry, hub: Hub) -> str | Skip:
    """Return the text of a small file, or why it has none."""
    limit = LIMIT_BYTES[entry.path]
    if entry.size_bytes > limit:
        why = f"It has {entry.size_bytes:,} bytes, more than the {limit:,} that are read of such a file."
        return Skip(what=entry.path, why=why)
    try:
        return hub.read_text(ref, entry.path, limit_bytes=limit)
    except _WHOLE_REPO:
        raise
    except RepoUnavailable as error:
        return Skip(what=entry.path, why=str(error))


def _object(texts: Mapping[str, str], path: str, skips: list[Skip]) -> Mapping[str, Any] | None:
    """The parsed JSON object, or None with a skip when there is a text that is none."""
    if path not in texts:
        return None
    try:
        return parse_object(texts[path])
    except BadConfig as error:
        skips.append(Skip(what=path, why=f"It {error}, so it was not used."))
        return None
