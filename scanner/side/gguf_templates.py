"""Chat templates inside GGUF files: programs that load such a file use its own template, not the repository's."""

from collections.abc import Iterator
from typing import Final

from scanner.errors import HubAuditError
from scanner.folder import read_span
from scanner.hub import Hub
from scanner.records import FileEntry, RepoFacts, Skip
from scanner.side.reading import inherited
from scanner.side.records import Template
from scanner.weights.gguf_files import PREFERRED, SUFFIX, is_beside, is_later_part

MAX_FILES: Final = 4
"""GGUF files whose header is read for its template; repositories hold one model in up to thirty precisions."""
_KEY: Final = "tokenizer.chat_template"


def gguf_templates(facts: RepoFacts | None, base: RepoFacts | None, hub: Hub, skips: list[Skip]) -> list[Template]:
    """Read the templates in the headers of a repository's GGUF files, the file that loaders prefer first.

    One request for each file that the base does not have too, more for headers beyond a megabyte.

    Args:
        facts: of the repository; None gives none.
        base: a repository whose files need not be read again.
        hub: the reader.
        skips: takes files that cannot be read or are too many.
    """
    if facts is None:
        return []
    named = [e for e in facts.files if e.path.endswith(SUFFIX) and not is_beside(e.path) and not is_later_part(e.path)]
    entries = sorted(
        (entry for entry in named if not inherited(entry.path, facts, base)),
        key=lambda entry: (PREFERRED not in entry.path.lower(), entry.path),
    )
    found: list[Template] = []
    for entry in entries[:MAX_FILES]:
        try:
            found += _templates(entry, facts, hub)
        except HubAuditError as error:
            skips.append(Skip(what=f"{facts.ref.name}: {entry.path}", why=f"Its chat template was not read: {error}"))
    if len(entries) > MAX_FILES:
        what = f"{len(entries) - MAX_FILES} more GGUF files of {facts.ref.name}"
        skips.append(Skip(what=what, why=f"The chat templates of {MAX_FILES} files were read."))
    return found


def _templates(entry: FileEntry, facts: RepoFacts, hub: Hub) -> Iterator[Template]:
    from scanner.weights.gguf_header import read_gguf_header  # noqa: PLC0415  # it loads the gguf package

    folder = facts.ref.path

    def read(start: int, end: int) -> bytes:
        if start >= end:
            return b""
        if folder is not None:
            return read_span(folder, entry.path, start, end)
        return hub.read_range(hub.locate(facts.ref, entry.path), start, end)

    header = read_gguf_header(read, entry.path, entry.size_bytes)
    for key, text in header.texts.items():
        yield Template(file=entry.path, name=key.removeprefix(_KEY).strip(".")[:80] or "default", text=text)
