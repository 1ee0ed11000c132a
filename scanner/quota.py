"""The request quotas of the Hub, as its answers state them, and the seam by which many readers share one.

The Hub counts requests per token (or address) in fixed windows, apart for its API and for file addresses, and says
with each answer what is left (draft-ietf-httpapi-ratelimit-headers-09)::

    RateLimit: "api";r=489;t=55
    RateLimit-Policy: "fixed window";"api";q=500;w=300
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Bucket = Literal["api", "resolvers", "pages"]
"""What a request counts against."""

_LIMIT = re.compile(r'"(\w{1,40})"\s*;\s*r\s*=\s*(\d{1,9})\s*;\s*t\s*=\s*(\d{1,9})', re.ASCII)
_QUOTA = re.compile(r";\s*q\s*=\s*(\d{1,9})\s*;\s*w\s*=\s*(\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one answer says of the quota: requests left, seconds until the window ends, and its size if stated."""

    remaining: int
    reset_seconds: float
    quota: int | None = None
    window_seconds: float | None = None


class Governor(Protocol):
    """Decides when a request may leave, and learns from the answers. Thread-safe."""

    def admit(self, bucket: Bucket) -> None:
        """Wait until one more request of that kind may leave."""

    def learn(self, bucket: Bucket, allowance: Allowance) -> None:
        """Take note of what an answer said."""


def bucket_of(path: str) -> Bucket:
    """Return the quota that a request to the Hub itself counts against, by its path."""
    if path.startswith("/api/"):
        return "api"
    return "resolvers" if "/resolve/" in path else "pages"


def allowance_of(headers: Mapping[str, str]) -> Allowance | None:
    """Read the quota from the headers of an answer; None when they state none."""
    limit = _LIMIT.search(headers.get("RateLimit", ""))
    if limit is None:
        return None
    policy = _QUOTA.search(headers.get("RateLimit-Policy", ""))
    return Allowance(
        remaining=int(limit[2]),
        reset_seconds=float(limit[3]),
        quota=int(policy[1]) if policy else None,
        window_seconds=float(policy[2]) if policy else None,
    )
