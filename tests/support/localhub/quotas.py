"""Request quotas in fixed windows, stated with every answer as the Hub states them."""

import math
import threading
import time
from collections.abc import Mapping


class Quotas:
    """Counts requests by bucket; ``limits`` maps a bucket to requests and seconds per window."""

    def __init__(self, limits: Mapping[str, tuple[int, float]]) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}
        self.refused = 0

    def count(self, path: str) -> tuple[dict[str, str], bool]:
        """Count a request; return the headers that state what is left, and whether it is refused."""
        bucket = "api" if path.startswith("/api/") else "resolvers" if "/resolve/" in path else "pages"
        if bucket not in self._limits:
            return {}, False
        quota, seconds = self._limits[bucket]
        with self._lock:
            now = time.monotonic()
            begun, used = self._windows.get(bucket, (now, 0))
            if now >= begun + seconds:
                begun, used = now, 0
            refused = used >= quota
            used += not refused
            self.refused += refused
            self._windows[bucket] = (begun, used)
            reset = math.ceil(begun + seconds - now)
        headers = {
            "RateLimit": f'"{bucket}";r={quota - used};t={reset}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={quota};w={math.ceil(seconds)}',
        }
        return headers, refused
