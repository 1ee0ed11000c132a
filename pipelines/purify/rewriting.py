"""Copies a file while replacing parts of it, and hashes both sides on the way. Flat memory, whatever the size."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from scanner.errors import CouldNotConclude
from scanner.paths import shown

PIECE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` (included) to ``end`` (excluded) of a file, and what makes the new ones, of the same number."""

    start: int
    end: int
    replace: Callable[[bytearray], bytes | bytearray | memoryview]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """SHA-256 (hex) of a file before and after."""

    before: str
    after: str


def rewrite(
    source: Path, target: Path, spans: Iterable[Span] = (), tell: Callable[[int], None] | None = None
) -> Hashes:
    """Copy ``source`` to ``target``, which must not exist, with the spans replaced.

    Args:
        source: a regular file, or a link to one.
        target: in an existing folder.
        spans: in the order of the file, not overlapping; each is asked for and held one at a time.
        tell: hears how many bytes of the source are done.

    Raises:
        CouldNotConclude: the file is shorter than a span says.
        OSError: reading or writing failed, the disk is full.
    """
    copier = _Copier(tell or (lambda _: None))
    with source.open("rb") as reader, target.open("xb") as writer:
        for span in spans:
            copier.copy(reader, writer, span.start)
            raw = bytearray(reader.read(span.end - span.start))
            if len(raw) != span.end - span.start:
                raise CouldNotConclude(f"{shown(source.name)} is shorter than its header says; download it again.")
            copier.before.update(raw)
            new = span.replace(raw)
            assert len(new) == span.end - span.start
            copier.after.update(new)
            writer.write(new)
            copier.advance(span.end)
        copier.copy(reader, writer, None)
    return Hashes(before=copier.before.hexdigest(), after=copier.after.hexdigest())


class _Copier:
    """Copies what lies between spans."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.before, self.after = sha256(), sha256()
        self._done = 0
        self._tell = tell

    def advance(self, done: int) -> None:
        self._done = done
        self._tell(done)

    def copy(self, reader: BinaryIO, writer: BinaryIO, until: int | None) -> None:
        """Copy up to an offset, or to the end."""
        assert until is None or until >= self._done, "spans come in order"
        while until is None or self._done < until:
            piece = reader.read(PIECE_BYTES if until is None else min(PIECE_BYTES, until - self._done))
            if not piece:
                break
            self.before.update(piece)
            self.after.update(piece)
            writer.write(piece)
            self.advance(self._done + len(piece))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
