"""A slow network: one token bucket for all connections, and a delay per request."""

import threading
import time

BURST_SECONDS = 0.01


class Bandwidth:
    """Lets bytes through at a common rate.

    Kept as the time at which the line falls idle. A line that has been idle may run ahead by ``BURST_SECONDS``
    at most, so that short transfers are timed honestly too.
    """

    def __init__(self, bytes_per_second: float | None) -> None:
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._lock = threading.Lock()
        self._idle_at = time.monotonic()

    def take(self, size: int) -> None:
        """Return once ``size`` bytes have had the time that they need on the line."""
        if not self._seconds_per_byte:
            return
        with self._lock:
            now = time.monotonic()
            self._idle_at = max(self._idle_at, now - BURST_SECONDS) + size * self._seconds_per_byte
            wait = self._idle_at - now
        if wait > 0:
            time.sleep(wait)
