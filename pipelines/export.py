"""The results of a fleet as one table, for analysis elsewhere: Parquet (``hubaudit[parquet]``) or JSON lines.

One row per job, done or not, in the order in which repositories were entered. Written in batches through a temporary
neighbour: a ledger of millions needs little memory, and nobody ever sees half a file.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pipelines.ledger_views import LedgerReader
from pipelines.whole_file import whole_file
from scanner.errors import CouldNotConclude

BATCH_ROWS: Final = 2000
_TEXT = (
    "repo_id", "wanted", "state", "reason", "cause", "revision", "ending", "problem", "outcome", "relation", "status",
    "base_repo", "base_revision", "created_at", "digest", "rules", "tool",
)  # fmt: skip
_WHOLE = ("size_bytes", "parameters_compared", "parameters_total", "bytes_read", "requests")
_REAL = ("score", "false_positive_rate", "seconds")
_NOTE = ("rule_id", "severity", "title", "fingerprint")


def rows(reader: LedgerReader) -> Iterator[dict[str, Any]]:
    """Yield one flat row per job; ``findings`` is a list of dicts, None where there is no result."""
    for job in reader.jobs():
        row: dict[str, Any] = {name: job[name] for name in (*_TEXT, *_WHOLE, *_REAL)}
        row["findings"] = None if job["findings"] is None else json.loads(job["findings"])
        yield row


def export_jsonl(reader: LedgerReader, path: Path) -> int:
    """Write a line of JSON per job; return how many.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    written = 0
    with whole_file(path) as temporary, temporary.open("w", encoding="ascii") as file:
        for row in rows(reader):
            file.write(json.dumps(row) + "\n")
            written += 1
    return written


def export_parquet(reader: LedgerReader, path: Path) -> int:
    """Write a Parquet file with a row per job; return how many.

    Raises:
        CouldNotConclude: pyarrow is not installed.
        OSError: the file cannot be written; nothing is left behind.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CouldNotConclude(
            "Parquet needs pyarrow; install it with `pip install 'hubaudit[parquet]'`, or use --jsonl."
        ) from error
    note = pa.struct([(name, pa.string()) for name in _NOTE])
    schema = pa.schema(
        [(name, pa.string()) for name in _TEXT]
        + [(name, pa.int64()) for name in _WHOLE]
        + [(name, pa.float64()) for name in _REAL]
        + [("findings", pa.list_(note))]
    )
    written = 0
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in _batches(rows(reader)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            written += len(batch)
    return written


def _batches(found: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in found:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
