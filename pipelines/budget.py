"""One request quota for all workers of a fleet: kept by the driver, lent out in small amounts.

The Hub counts the requests of a token in fixed windows, whoever sends them. Each worker therefore borrows a few
requests at a time from the ``BudgetServer`` in the driver and hands on what the answers say of the quota. While no
answer states a quota there is none to share, and nobody waits. When the window is used up, everybody waits for its
end, instead of running into refusals one by one.

The server speaks JSON lines over TCP: the same on one machine and in a cluster. A worker proves by the first line that
it is one; numbers are all that is ever exchanged.
"""

import contextlib
import hmac
import json
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from scanner.quota import Allowance, Bucket

LENT: Final = 8
"""Requests lent at a time, at most; less when the window is nearly used up."""
FREE_SECONDS: Final = 2.0
"""While no quota is known, a worker asks again after this long; what it learns meanwhile it tells at once."""
LONGEST_WAIT_SECONDS: Final = 600.0
"""No header can make anybody wait longer: the Hub's windows have 300 s."""
_KNOWN_BUCKETS: Final = frozenset({"api", "resolvers", "pages"})
_SECRET_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAddress:
    """Where a ``BudgetServer`` listens, and the word that it expects first."""

    host: str
    port: int
    secret: str = field(repr=False)


@dataclass(slots=True, kw_only=True)
class _Window:
    """What is left of one quota: requests, until when (monotonic seconds), and its size if known."""

    left: float
    ends: float
    quota: int | None = None
    seconds: float | None = None


class Budget:
    """The arithmetic of shared quotas. Thread-safe."""

    def __init__(self, *, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without knowing any quota.

        Args:
            share: how much of each window may be used, in (0, 1]; the rest is left to others with the same token.
            clock: monotonic seconds.
        """
        self._share = share
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def lend(self, bucket: str, wanted: int) -> tuple[int, float]:
        """Return how many requests may be sent, and for how many seconds that holds.

        Zero requests: ask again after so many seconds. While no quota is known, ``wanted`` are lent.
        """
        now = self._clock()
        with self._lock:
            window = self._windows.get(bucket)
            if window is None:
                return wanted, FREE_SECONDS
            if now >= window.ends:
                if window.quota is None or window.seconds is None:
                    del self._windows[bucket]
                    return wanted, FREE_SECONDS
                window.left, window.ends = _begun(window.quota, window.quota), now + window.seconds
            kept = (1.0 - self._share) * (window.quota or 0)
            usable = int(window.left - kept)
            if usable <= 0:
                return 0, min(window.ends - now, LONGEST_WAIT_SECONDS)
            # Few at a time when few are left, so that none lie idle with one worker while another waits.
            lent = min(wanted, max(1, usable // 4))
            window.left -= lent
            return lent, window.ends - now

    def learn(self, bucket: str, allowance: Allowance) -> None:
        """Take note of an answer. Within a window only a smaller remainder is news: others are lent, not yet sent."""
        now = self._clock()
        ends = now + min(allowance.reset_seconds, LONGEST_WAIT_SECONDS)
        with self._lock:
            window = self._windows.get(bucket)
            # The end is told in whole seconds: the same window may seem to end a second earlier or later.
            if window is None or now >= window.ends or ends > window.ends + 1.5:
                left = _begun(allowance.remaining, allowance.quota)
                window = self._windows[bucket] = _Window(left=left, ends=ends)
            else:
                window.left = min(window.left, float(allowance.remaining))
                window.ends = max(window.ends, ends) if allowance.remaining == 0 else window.ends
            window.quota = allowance.quota or window.quota
            window.seconds = allowance.window_seconds or window.seconds

    def rate(self, bucket: str) -> float | None:
        """Return how many requests per second a quota allows in the long run, or None while none is known."""
        with self._lock:
            window = self._windows.get(bucket)
            if window is None or not window.quota or not window.seconds:
                return None
            return self._share * window.quota / window.seconds

    def left(self) -> dict[str, int]:
        """Return what is left of each known quota, for people."""
        with self._lock:
            return {name: max(0, int(window.left)) for name, window in self._windows.items()}


def _begun(remaining: int, quota: int | None) -> float:
    """Return what may be lent of a window that has just begun, or just become known.

    Some requests are on their way: sent before anybody knew, or at the end of the last window and counted in this.
    """
    on_their_way = min(max(LENT, 0.02 * (quota or 0)), (quota or remaining) / 4)
    return max(0.0, remaining - on_their_way)


class OwnBudget:
    """A ``scanner.quota.Governor`` in the driver itself, for its listings. Thread-safe."""

    def __init__(self, budget: Budget, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._budget = budget
        self._sleep = sleep

    def admit(self, bucket: Bucket) -> None:
        """Wait until one more request of that kind may leave."""
        while True:
            lent, seconds = self._budget.lend(bucket, 1)
            if lent:
                return
            self._sleep(max(0.05, seconds))

    def learn(self, bucket: Bucket, allowance: Allowance) -> None:
        """Take note of what an answer said."""
        self._budget.learn(bucket, allowance)


class BudgetServer:
    """Lends requests to workers over TCP. Use as a context manager."""

    def __init__(self, budget: Budget, *, host: str = "127.0.0.1") -> None:
        """Listen on a free port of ``host``; in a cluster that is the driver's address."""
        self.budget = budget
        secret = secrets.token_hex(_SECRET_BYTES)

        peers: set[socket.socket] = set()
        self._peers = peers

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                peers.add(self.connection)
                # A peer that talks nonsense, or to somebody else, is hung up on.
                with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
                    word = self.rfile.readline(200).decode("ascii", "replace").strip()
                    if not hmac.compare_digest(word, secret):
                        return
                    while line := self.rfile.readline(2000):
                        self.wfile.write(json.dumps(_serve(budget, json.loads(line))).encode() + b"\n")

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 256

            def shutdown_request(self, request: Any) -> None:
                peers.discard(request)
                super().shutdown_request(request)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: the peer has hung up."""

        self._listener = Listener((host, 0), Session)
        self.address = BudgetAddress(host=host, port=self._listener.server_address[1], secret=secret)
        threading.Thread(target=self._listener.serve_forever, args=(0.1,), daemon=True, name="budget").start()

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        self._listener.shutdown()
        self._listener.server_close()
        for peer in tuple(self._peers):
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exit: object) -> None:
        self.close()


class BorrowedBudget:
    """A ``scanner.quota.Governor`` that borrows from a ``BudgetServer``. Thread-safe; one per process.

    When the driver cannot be reached any more, nobody is held up: the Hub's own refusals still are heeded.
    """

    def __init__(self, address: BudgetAddress, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Connect with the first request."""
        self._address = address
        self._sleep = sleep
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._reader: Any = None
        self._lent: dict[Bucket, tuple[int, float]] = {}
        self._unlimited: dict[Bucket, float] = {}
        self._gone = False

    def admit(self, bucket: Bucket) -> None:
        """Wait until one more request of that kind may leave."""
        while True:
            with self._lock:
                wait = self._take(bucket)
            if wait <= 0:
                return
            self._sleep(wait)

    def learn(self, bucket: Bucket, allowance: Allowance) -> None:
        """Hand on what an answer said."""
        with self._lock:
            self._unlimited.pop(bucket, None)
            self._ask({"learn": bucket, "allowance": [
                allowance.remaining, allowance.reset_seconds, allowance.quota, allowance.window_seconds
            ]})  # fmt: skip

    def close(self) -> None:
        """Hang up; further requests are admitted at once."""
        with self._lock:
            self._gone = True
            if self._socket is not None:
                self._reader.close()
                self._socket.close()
                self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exit: object) -> None:
        self.close()

    def _take(self, bucket: Bucket) -> float:
        """Use one lent request, borrowing more when none is left; return the seconds to wait when there is none."""
        now = time.monotonic()
        if self._gone or now < self._unlimited.get(bucket, 0.0):
            return 0.0
        left, until = self._lent.get(bucket, (0, 0.0))
        if left > 0 and now < until:
            self._lent[bucket] = (left - 1, until)
            return 0.0
        answer = self._ask({"lend": bucket, "wanted": LENT})
        if answer is None:
            return 0.0
        lent, seconds, limited = int(answer["lent"]), float(answer["seconds"]), bool(answer["limited"])
        if not limited:
            self._unlimited[bucket] = now + seconds
            return 0.0
        if lent <= 0:
            return max(0.05, seconds)
        self._lent[bucket] = (lent - 1, now + seconds)
        return 0.0

    def _ask(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if self._gone:
            return None
        try:
            if self._socket is None:
                self._socket = socket.create_connection((self._address.host, self._address.port), timeout=10)
                self._reader = self._socket.makefile("rb")
                self._socket.sendall(f"{self._address.secret}\n".encode())
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            answer = json.loads(self._reader.readline(2000))
        except (OSError, ValueError):
            self._gone = True
            return None
        return answer if isinstance(answer, dict) else None


def _serve(budget: Budget, message: dict[str, Any]) -> dict[str, Any]:
    """Answer one message.

    Raises:
        ValueError, KeyError, TypeError: it is not one.
    """
    if "learn" in message:
        remaining, reset, quota, window = message["allowance"]
        if message["learn"] in _KNOWN_BUCKETS:
            note = Allowance(
                remaining=int(remaining),
                reset_seconds=float(reset),
                quota=None if quota is None else int(quota),
                window_seconds=None if window is None else float(window),
            )
            budget.learn(message["learn"], note)
        return {}
    bucket = str(message["lend"])
    limited = bucket in budget.left()
    lent, seconds = budget.lend(bucket, min(LENT, max(1, int(message["wanted"]))))
    return {"lent": lent, "seconds": seconds, "limited": limited}
