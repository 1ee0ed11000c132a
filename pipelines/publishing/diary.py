"""Counts whom we have written to today, so that no run, and no ten runs, bother many people at once.

One small JSON file for all processes of a user, guarded by a lock that its owner's death releases. It holds the
present day (UTC) alone; the Hub itself remembers everything else (our threads, and who closed them).
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipelines.output import write_document
from pipelines.publishing.errors import DailyCapReached
from scanner.errors import CouldNotConclude

VERSION = 1
DEFAULT_CAP = 20
"""Repositories of others a day, when nobody says otherwise."""


class Diary:
    """The repositories of others that were written to today, by endpoint.

    Args:
        path: the state file; it and its folder are created when first needed.
        cap: how many different ones a day; 0 for none at all.
        clock: tells the present moment.
    """

    def __init__(self, path: Path, *, cap: int = DEFAULT_CAP, clock: Callable[[], datetime] | None = None) -> None:
        self._path = path
        self._cap = cap
        self._clock = clock or (lambda: datetime.now(UTC))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process on this computer publish during the block; wait for the one that does.

        Raises:
            OSError: the state folder cannot be written to.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f"{self._path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def written_today(self, endpoint: str) -> frozenset[str]:
        """Return the repositories written to today, on one Hub."""
        return frozenset(self._today().get(endpoint, ()))

    def reserve(self, endpoint: str, repo_id: str) -> None:
        """Count a repository before it is written to, so that a crash forgets nothing; the same one counts once.

        Raises:
            DailyCapReached: it would be one too many.
            CouldNotConclude: the state file is damaged.
        """
        days = self._today()
        known = days.setdefault(endpoint, [])
        if repo_id in known:
            return
        if len(known) >= self._cap:
            raise DailyCapReached(
                f"{repo_id} was not written to: today's limit of {self._cap} repositories of others is reached; "
                "run the same command tomorrow, or raise --daily-cap."
            )
        known.append(repo_id)
        self._write(days)

    def release(self, endpoint: str, repo_id: str) -> None:
        """Take a reservation back: nothing was written after all."""
        days = self._today()
        if repo_id in days.get(endpoint, ()):
            days[endpoint].remove(repo_id)
            self._write(days)

    def _day(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%d")

    def _today(self) -> dict[str, list[str]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["version"] != VERSION:
                raise ValueError(content["version"])
            days = {str(end): [str(name) for name in names] for end, names in content["written"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # Starting afresh would forget today's count, so a person has to look.
            raise CouldNotConclude(f"{self._path} is damaged; look at it, then delete it and run again.") from error
        return days if content.get("day") == self._day() else {}

    def _write(self, written: dict[str, list[str]]) -> None:
        content = {"version": VERSION, "day": self._day(), "written": written}
        write_document(json.dumps(content, indent=1, sort_keys=True) + "\n", str(self._path))
