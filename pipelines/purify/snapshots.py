"""A complete local copy of a model: a folder as it is, a repository on the Hub downloaded file by file.

What is there already and whole is not fetched again, so that an interrupted download goes on. Weights in formats that
are not used are not fetched at all.
"""

from pathlib import Path
from typing import Final

from pipelines.progress import Progress
from pipelines.purify.rewriting import file_digest
from pipelines.purify.writer import is_weights, need_room
from scanner.errors import CorruptWeights, CouldNotConclude
from scanner.facts import collect
from scanner.hub import Hub
from scanner.paths import is_plain_path, shown
from scanner.records import FileEntry, RepoRef
from scanner.weights.layout import find_layout

PIECE_BYTES: Final = 8 << 20
MAX_SIDE_BYTES: Final = 256 << 20
"""Tokenizers of 30 MB exist; what is larger and holds no weights is no part of a model."""


def snapshot(ref: RepoRef, hub: Hub, folder: Path, progress: Progress) -> Path:
    """Return the folder of a local model, or download a repository into ``folder`` and return where.

    Raises:
        NothingToCompare: there are no weights.
        CouldNotConclude: a file cannot be read or does not match its hash, or there is no room.
    """
    if ref.path is not None:
        return Path(ref.path)
    facts = collect(ref, hub)
    layout = find_layout(facts, lambda path, limit: hub.read_bytes(ref, path, limit_bytes=limit))
    weights = {entry.path for entry in layout.files}
    wanted = [
        entry
        for entry in facts.files
        if is_plain_path(entry.path)
        and (entry.path in weights or (not is_weights(entry.path) and entry.size_bytes <= MAX_SIDE_BYTES))
    ]
    home = folder / ref.name.replace("/", "--") / str(ref.revision)
    home.mkdir(parents=True, exist_ok=True)
    missing = [entry for entry in wanted if not _is_whole(home / entry.path, entry)]
    total, done = sum(entry.size_bytes for entry in missing), 0
    need_room(home, total)
    progress.stage(f"downloading {ref.name}")
    for entry in missing:
        _fetch(ref, entry, hub, home / entry.path, progress, done, total)
        done += entry.size_bytes
    return home


def _is_whole(path: Path, entry: FileEntry) -> bool:
    """A finished file has its name only once it is complete, so its size says enough."""
    return path.is_file() and path.stat().st_size == entry.size_bytes


def _fetch(ref: RepoRef, entry: FileEntry, hub: Hub, target: Path, progress: Progress, done: int, total: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    remote = hub.locate(ref, entry.path)
    if remote.size_bytes != entry.size_bytes:
        raise CorruptWeights(f"{shown(entry.path)} is listed with another size than it is offered with; run again.")
    with part.open("ab") as file:
        here = file.tell() if file.tell() <= entry.size_bytes else 0
        file.truncate(here)
        while here < entry.size_bytes:
            piece = hub.read_range(remote, here, min(here + PIECE_BYTES, entry.size_bytes))
            file.write(piece)
            here += len(piece)
            progress.advance(done + here, total)
    if entry.sha256 is not None and file_digest(part) != entry.sha256:
        part.unlink()
        raise CouldNotConclude(f"{shown(entry.path)} does not match the hash that the Hub declares; run again.")
    part.replace(target)
