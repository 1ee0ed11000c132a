"""Small files read once per scan, whoever asks for them, and told apart by hash before anything is read."""

from collections.abc import Mapping
from typing import Any, Protocol

from scanner.config_json import BadConfig, parse_object
from scanner.errors import HubAuditError
from scanner.records import FileEntry, RepoFacts, RepoRef, Skip

MAX_JSON_BYTES = 8 << 20
"""Of one configuration file beside the tokenizer; tokenizer_config.json with 100,000 added tokens has about 6 MB."""


class TextReader(Protocol):
    """Reads small files; ``scanner.hub.Hub`` is one."""

    def read_text(self, ref: RepoRef, path: str, *, limit_bytes: int) -> str:
        """As ``scanner.hub.Hub.read_text``."""
        ...


class Remembered:
    """Asks a reader for each file once and keeps the text, or the refusal, as long as it lives."""

    def __init__(self, reader: TextReader) -> None:
        """Wrap a reader."""
        self._reader = reader
        self._kept: dict[tuple[RepoRef, str], str | HubAuditError] = {}

    def read_text(self, ref: RepoRef, path: str, *, limit_bytes: int) -> str:
        """As ``scanner.hub.Hub.read_text``. Not for several threads."""
        key = (ref, path)
        if key not in self._kept:
            try:
                self._kept[key] = self._reader.read_text(ref, path, limit_bytes=limit_bytes)
            except HubAuditError as error:
                self._kept[key] = error
        kept = self._kept[key]
        if isinstance(kept, HubAuditError):
            raise kept
        return kept


def same_bytes(candidate: FileEntry, base: FileEntry | None) -> bool:
    """Whether the listings prove two files equal.

    The hash of a file in git is the server's. That of a large file is claimed by its uploader, and nobody checks it:
    it counts together with the storage hash only.
    """
    if base is None or candidate.size_bytes != base.size_bytes:
        return False
    if candidate.sha256 is None and base.sha256 is None:
        return candidate.blob_id is not None and candidate.blob_id == base.blob_id
    return candidate.sha256 == base.sha256 and candidate.xet_hash is not None and candidate.xet_hash == base.xet_hash


def inherited(path: str, candidate: RepoFacts, base: RepoFacts | None) -> bool:
    """Whether the base has this very file under the same name, by the listings alone."""
    mine = candidate.file(path)
    return mine is not None and base is not None and same_bytes(mine, base.file(path))


def read_object(facts: RepoFacts | None, path: str, reader: TextReader, skips: list[Skip]) -> Mapping[str, Any] | None:
    """Return a JSON object of a repository; None when there is none, with a skip when it cannot be used."""
    if facts is None or facts.file(path) is None:
        return None
    try:
        return parse_object(reader.read_text(facts.ref, path, limit_bytes=MAX_JSON_BYTES))
    except BadConfig as error:
        skips.append(Skip(what=f"{facts.ref.name}: {path}", why=f"It {error}, so it was not used."))
    except HubAuditError as error:
        skips.append(Skip(what=f"{facts.ref.name}: {path}", why=str(error)))
    return None
