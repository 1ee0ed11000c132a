"""Faults to inject, as data: which requests, how often, and what goes wrong.

``hub.faults.add(Status(code=503), path="/resolve/", times=2)`` spoils the next two requests whose path holds
``/resolve/``. When several faults match a request, the one added first strikes.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

FOR_EVER = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The request is refused with a status and is not carried out."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "injected fault"

    @classmethod
    def rate_limited(cls, seconds: int, *, bucket: str = "api") -> Self:
        """Return a 429 in the Hub's form: no request remains, and the window ends after ``seconds``."""
        headers = {
            "RateLimit": f'"{bucket}";r=0;t={seconds}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q=500;w=300',
        }
        return cls(code=429, headers=headers, message="Too many requests")

    @classmethod
    def retry_after(cls, code: int, seconds: int) -> Self:
        """Return a refusal with ``Retry-After`` in seconds."""
        return cls(code=code, headers={"Retry-After": str(seconds)})


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreRange:
    """The whole file is sent with 200, whatever range was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongRange:
    """The right bytes under a ``Content-Range`` whose start and end are ``shift_bytes`` off."""

    shift_bytes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortRange:
    """An honest 206 that holds ``missing_bytes`` fewer than asked for, and says so."""

    missing_bytes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """The connection closes after ``after_bytes`` of the body, short of the announced length."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Nothing more is sent for ``seconds``, before the head, or inside the body after ``after_bytes``."""

    seconds: float
    after_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The connection closes; the request is not carried out and gets no reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseReply:
    """The request is carried out, then the connection closes without a reply."""


Fault = Status | IgnoreRange | WrongRange | ShortRange | Truncate | Stall | Drop | LoseReply


@dataclass(slots=True, kw_only=True)
class _Plan:
    fault: Fault
    method: str | None
    path: str
    after: int
    times: int
    from_byte: int

    def strikes(self, method: str, target: str, start: int) -> bool:
        return (
            self.times > 0
            and self.path in target
            and self.method in {None, method}
            and (self.from_byte == 0 or start >= self.from_byte)
        )


class Faults:
    """The faults still to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: list[_Plan] = []

    def add(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "",
        after: int = 0,
        times: int = 1,
        from_byte: int = 0,
    ) -> None:
        """Plan a fault.

        Args:
            fault: what goes wrong.
            method: only this method; None for every one.
            path: only where this occurs in the raw path with its query.
            after: matching requests to let through first. Of requests in flight together, which ones come first is
                chance.
            times: requests to spoil, ``FOR_EVER`` for all.
            from_byte: only requests for a range that starts here or later; 0 for every request.
        """
        plan = _Plan(fault=fault, method=method, path=path, after=after, times=times, from_byte=from_byte)
        with self._lock:
            self._plans.append(plan)

    def take(self, method: str, target: str, byte_range: str = "") -> Fault | None:
        """Return the fault that strikes this request (its ``Range`` header given), and use it up."""
        stated = re.match(r"bytes=(\d+)-", byte_range)
        start = int(stated[1]) if stated else -1
        with self._lock:
            for plan in self._plans:
                if not plan.strikes(method, target, start):
                    continue
                if plan.after > 0:
                    plan.after -= 1
                    continue
                plan.times -= 1
                return plan.fault
        return None

    @property
    def pending(self) -> int:
        """Faults that were planned and have not struck yet."""
        with self._lock:
            return sum(plan.times for plan in self._plans)

    def clear(self) -> None:
        """Forget every fault."""
        with self._lock:
            self._plans.clear()
