"""Lets an interrupted scan of large repositories go on where it was."""

from pathlib import Path
from typing import Final

from pipelines.settings import tool_version
from scanner.drift.stored import DriftStore
from scanner.records import RepoRef
from scanner.weights.source import WeightSource

LEAST_BYTES: Final = 32 << 20
"""Weights of both sides below which reading again costs less than keeping."""


class Resume:
    """What one scan keeps, and finds of an earlier one."""

    def __init__(self, folder: Path, candidate: RepoRef, base: RepoRef) -> None:
        """Look for what an interrupted scan of the same two commits has left.

        Args:
            folder: of all scans.
            candidate: pinned, on the Hub.
            base: pinned as it was asked for, on the Hub; its nearest revision is found again.
        """
        self._store = DriftStore(folder, candidate, base, version=tool_version())

    def salt(self, fresh: int) -> int:
        """The secret number of the interrupted scan, or this one."""
        return self._store.salt(fresh)

    def store_for(self, candidate: WeightSource, base: WeightSource) -> DriftStore | None:
        """The store, where keeping pays: at least one side is remote, and both together are large."""
        large = candidate.bytes_total + base.bytes_total >= LEAST_BYTES
        return self._store if large and (candidate.remote or base.remote) else None

    @property
    def unreadable(self) -> int:
        """Kept files that could not be used and were measured again."""
        return self._store.unreadable

    def end(self, *, complete: bool) -> None:
        """Forget everything once the scan has read all that it wanted."""
        if complete:
            self._store.forget()
