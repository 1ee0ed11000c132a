"""Rows of clean samples, one dictionary each, streamed from a CSV, JSONL or Parquet file or from a dataset on the Hub.

Nothing is held but the row at hand (a batch, for Parquet). Code of a dataset is never run: the library has no such
loader any more.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scanner.errors import BadReference, CouldNotConclude
from scanner.paths import shown

MAX_LINE_CHARS: Final = 8 << 20
"""A longer line of JSON is no sample."""
_BATCH_ROWS: Final = 256
_DATASET: Final = re.compile(r"[\w.-]{1,96}(?:/[\w.-]{1,96})?(?:@[\w./-]{1,255})?", re.ASCII)
_SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_SPLITS: Final = ("train", "training", "validation", "dev", "test")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSource:
    """Where rows come from: ``columns`` in their order, and the names of classes where the source declares them.

    ``class_names`` maps a column to its classes by index. ``rows`` may be iterated once.
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterator[Row]
    class_names: Mapping[str, tuple[str, ...]]


@contextmanager
def open_rows(
    text: str, *, split: str | None = None, config: str | None = None, token: str | None = None
) -> Iterator[RowSource]:
    """Open a file, or a dataset on the Hub where there is no such file.

    Args:
        text: a path, or ``org/name`` with an optional ``@revision``.
        split: of a dataset on the Hub; the training split when None.
        config: of a dataset on the Hub that has several.
        token: for the Hub.

    Raises:
        BadReference: neither a file of a known kind nor the name of a dataset.
        CouldNotConclude: it cannot be read, or holds no rows.
    """
    check_source(text)
    path = Path(text).expanduser()
    if path.is_file():
        with _open_file(path) as source:
            yield source
    else:
        yield _open_dataset(text, split=split, config=config, token=token)


def check_source(text: str) -> None:
    """Look whether there is such a file, or whether a dataset on the Hub could be called that; nothing is read.

    Raises:
        BadReference: neither.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return
    if path.exists():
        raise BadReference(f"{text} is a folder; name a CSV, JSONL or Parquet file in it.")
    if not _DATASET.fullmatch(text) or text.endswith((*_SUFFIXES, ".gz")):
        raise BadReference(f"There is no file {text}; give a CSV, JSONL or Parquet file, or a dataset as org/name.")


@contextmanager
def _open_file(path: Path) -> Iterator[RowSource]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    kind = (suffixes[:-1] if packed else suffixes)[-1:] or [""]
    try:
        if kind[0] == ".parquet":
            with path.open("rb") as raw:
                yield _parquet(path.name, raw)
        elif kind[0] in _SUFFIXES:
            opened: Any = gzip.open if packed else open
            with (
                opened(path, "rb") as raw,
                io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as lines,
            ):
                yield _csv(path.name, lines, kind[0]) if kind[0] in {".csv", ".tsv"} else _jsonl(path.name, lines)
        else:
            raise BadReference(f"{path.name} ends in none of {', '.join(_SUFFIXES)}; rename or convert it.")
    except (csv.Error, gzip.BadGzipFile, EOFError, UnicodeError) as error:
        raise CouldNotConclude(f"{shown(path.name)} cannot be read ({error}); check the file.") from error
    except OSError as error:
        raise CouldNotConclude(f"{shown(path.name)} cannot be read ({error.strerror or error}).") from error


def _csv(name: str, lines: io.TextIOWrapper, suffix: str) -> RowSource:
    reader = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
    columns = tuple(column for column in reader.fieldnames or () if column)
    if not columns:
        raise CouldNotConclude(f"{shown(name)} is empty; its first line must name the columns.")
    return RowSource(name=name, columns=columns, rows=iter(reader), class_names={})


def _jsonl(name: str, lines: io.TextIOWrapper) -> RowSource:
    rows = _json_rows(name, lines)
    first = next(rows, None)
    if first is None:
        raise CouldNotConclude(f"{shown(name)} is empty; write one JSON object a line.")
    return RowSource(name=name, columns=tuple(first), rows=_chain(first, rows), class_names={})


def _json_rows(name: str, lines: io.TextIOWrapper) -> Iterator[Row]:
    number = 0
    while line := lines.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            raise CouldNotConclude(f"Line {number} of {shown(name)} is longer than any sample; check the file.")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CouldNotConclude(f"Line {number} of {shown(name)} is not JSON; write one object a line.") from error
        if not isinstance(row, dict):
            raise CouldNotConclude(f"Line {number} of {shown(name)} is not a JSON object; write one object a line.")
        yield row


def _chain(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def _parquet(name: str, raw: Any) -> RowSource:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CouldNotConclude("Parquet files need `pip install 'hubaudit[purify]'`.") from error
    try:
        file = pq.ParquetFile(raw)
    except pa.ArrowException as error:
        raise CouldNotConclude(f"{shown(name)} is no Parquet file ({error}).") from error

    def rows() -> Iterator[Row]:
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise CouldNotConclude(f"{shown(name)} is damaged ({error}); download it again.") from error

    return RowSource(name=name, columns=tuple(file.schema_arrow.names), rows=rows(), class_names={})


def _open_dataset(text: str, *, split: str | None, config: str | None, token: str | None) -> RowSource:
    try:
        import datasets
    except ImportError as error:
        raise CouldNotConclude(
            "Datasets on the Hub need `pip install 'hubaudit[purify]'`; or give a CSV, JSONL or Parquet file."
        ) from error
    repo_id, _, revision = text.partition("@")
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(repo_id, config, revision=revision or None, streaming=True, token=token)
        chosen = _choose_split(text, list(found), split)
        features = found[chosen].features or {}
        rows = iter(found[chosen])
        first = next(rows, None)
    except (BadReference, CouldNotConclude):
        raise
    except Exception as error:  # the library raises whatever its many readers raise
        raise CouldNotConclude(
            f"The dataset {shown(text)} cannot be read ({type(error).__name__}: {shown(str(error), 200)}); check its "
            "name and your access, or give a file."
        ) from error
    if first is None:
        raise CouldNotConclude(f"The split {chosen} of {shown(text)} is empty; name another with --data-split.")
    names = {column: tuple(f.names) for column, f in features.items() if isinstance(f, datasets.ClassLabel)}
    return RowSource(
        name=f"{text}:{chosen}", columns=tuple(first), rows=_chain(first, _guarded(text, rows)), class_names=names
    )


def _guarded(text: str, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except Exception as error:  # as above
        raise CouldNotConclude(
            f"The dataset {shown(text)} broke off ({type(error).__name__}); run the command again."
        ) from error


def _choose_split(text: str, splits: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted in splits:
            return wanted
        raise BadReference(f"{text} has no split {wanted!r}; it has {', '.join(map(shown, splits))}.")
    return next((split for split in _SPLITS if split in splits), splits[0])
