"""How long a read may take: time limits, retries with backoff, and the waits that a server asks for.

A wait is spent between two attempts at the same idempotent read. It is bounded twice: by the number of attempts and
by the sum of the waits, so that no server can hold a scan for ever.
"""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event

from scanner.errors import HubRateLimited, HubUnreachable

# `RateLimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers-09): requests left, seconds until the reset.
_RATE_LIMIT = re.compile(r";\s*r\s*=\s*(\d{1,9})\s*;\s*t\s*=\s*(\d{1,9})", re.ASCII)
_SECONDS = re.compile(r"\d{1,9}", re.ASCII)
TOO_MANY_REQUESTS = 429


class ReadStopped(Exception):  # noqa: N818
    """The caller no longer wants what was being read. Control flow, never shown to anyone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPolicy:
    """The limits of one read.

    ``timeout_seconds`` bounds each wait for the network (connect, each received piece, a free connection);
    ``max_wait_seconds`` the sum of the pauses between attempts (the quota window of the Hub is 300 s);
    ``attempts`` counts the first try. Pauses double from ``first_wait_seconds`` to ``longest_wait_seconds``.
    ``floor_bytes_per_second`` ends a body that trickles more slowly, averaged over the whole body.
    """

    timeout_seconds: float = 15.0
    max_wait_seconds: float = 300.0
    attempts: int = 6
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 8.0
    floor_bytes_per_second: float = 8192.0

    def body_seconds(self, n_bytes: int) -> float:
        """The longest time that a body of so many bytes may take."""
        return self.timeout_seconds + n_bytes / self.floor_bytes_per_second


def asked_wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait before the next attempt, or None.

    ``RateLimit`` counts only on a 429 with nothing left: the Hub sends it with every answer. ``Retry-After`` is read
    in both forms, seconds and date (RFC 9110, section 10.2.3).
    """
    limit = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    if status == TOO_MANY_REQUESTS and limit and int(limit[1]) == 0:
        return float(limit[2])
    after = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(after):
        return float(after)
    try:
        date = parsedate_to_datetime(after)
    except (ValueError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


class Patience:
    """The waits of one read, from its first failure to its last attempt."""

    def __init__(self, policy: ReadPolicy, what: str, *, stop: Event | None = None) -> None:
        """Begin a read of ``what`` (named in the error); ``stop`` ends every wait at once."""
        self._policy = policy
        self._what = what
        self._stop = stop
        self._failures = 0
        self._waited = 0.0
        self._next_wait = policy.first_wait_seconds

    def wait(self, problem: str, *, status: int = 0, headers: Mapping[str, str] | None = None) -> None:
        """Sleep before the next attempt.

        Args:
            problem: what went wrong this time, as the tail of a sentence.
            status: the HTTP status of the answer, 0 when there was none.
            headers: those of the answer.

        Raises:
            HubRateLimited: the last answer was a 429 and no wait is left.
            HubUnreachable: no attempt or no wait is left.
            ReadStopped: the caller stopped meanwhile.
        """
        self._failures += 1
        asked = asked_wait(status, headers) if headers is not None else None
        # Many connections are refused together; the random part keeps them from coming back together.
        chance = random.random()  # noqa: S311  # spreads load, guards nothing
        backoff = self._next_wait * (0.5 + 0.5 * chance)
        pause = backoff if asked is None else asked + self._policy.first_wait_seconds * chance
        left = self._policy.max_wait_seconds - self._waited
        if self._failures >= self._policy.attempts or pause > left:
            raise self._exhausted(problem, status, asked)
        self._waited += pause
        self._next_wait = min(self._next_wait * 2, self._policy.longest_wait_seconds)
        if self._stop is None:
            time.sleep(pause)
        elif self._stop.wait(pause):
            raise ReadStopped(self._what)

    def _exhausted(self, problem: str, status: int, asked: float | None) -> HubRateLimited | HubUnreachable:
        if status == TOO_MANY_REQUESTS:
            when = f"asks to wait {asked:.0f} s" if asked is not None else "refuses further requests for now"
            return HubRateLimited(
                f"{self._what} could not be read: the Hub {when} (rate limit); run again later, "
                "or set HF_TOKEN for a larger quota."
            )
        tries = f"{self._failures} attempt{'s' if self._failures != 1 else ''}"
        return HubUnreachable(
            f"{self._what} could not be read: {problem} ({tries}); check the network connection and run again."
        )
