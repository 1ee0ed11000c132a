"""What was asked of the server, for tests that count requests and bytes."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Side = Literal["hub", "cdn"]


@dataclass(slots=True, kw_only=True)
class Record:
    """One request. ``status`` is 0 when no reply was sent; ``sent`` counts body bytes given to the socket."""

    side: Side
    method: str
    target: str
    range: str | None
    user_agent: str
    authorized: bool
    started: float
    status: int = 0
    sent: int = 0


class RequestLog:
    """The requests so far, in the order in which they arrived.

    A record is complete before the last byte of its reply leaves, so a client that has read everything can count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        """Append a record, which its connection keeps up to date."""
        with self._lock:
            self._records.append(record)

    def clear(self) -> None:
        """Forget every request."""
        with self._lock:
            self._records.clear()

    def matching(
        self,
        path: str = "",
        *,
        method: str | None = None,
        status: int | None = None,
        side: Side | None = None,
        ranged: bool | None = None,
    ) -> tuple[Record, ...]:
        """Return the requests whose raw path with query holds ``path`` and that agree with all that is given."""
        with self._lock:
            records = tuple(self._records)
        return tuple(
            record
            for record in records
            if path in record.target
            and method in {None, record.method}
            and status in {None, record.status}
            and side in {None, record.side}
            and ranged in {None, record.range is not None}
        )

    def count(
        self,
        path: str = "",
        *,
        method: str | None = None,
        status: int | None = None,
        side: Side | None = None,
        ranged: bool | None = None,
    ) -> int:
        """Return how many requests ``matching`` finds."""
        return len(self.matching(path, method=method, status=status, side=side, ranged=ranged))

    def bytes_sent(self, path: str = "", *, side: Side | None = None) -> int:
        """Return the body bytes sent for the requests that match."""
        return sum(record.sent for record in self.matching(path, side=side))

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.matching())
