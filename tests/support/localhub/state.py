"""Everything that a reset forgets, and the view of it that one request gets."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from localhub.accounts import Account, require_content, require_visible
from localhub.faults import Faults
from localhub.quotas import Quotas
from localhub.requestlog import RequestLog
from localhub.stamps import timestamp
from localhub.store import Repo
from localhub.throttle import Bandwidth
from localhub.wire import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the server behaves.

    Attributes:
        cdn: LFS files are answered with 302 to the second port.
        cdn_url_seconds: life of a signed CDN address.
        page_size: most entries in one page of a listing (the real Hub: 1,000).
        bandwidth: bytes per second for all connections together; None for no limit.
        latency_seconds: delay before every reply.
        xet_cas_url: what the Xet token routes hand out; None means 404.
        quotas: requests and seconds per window, by bucket (``api``, ``resolvers``, ``pages``); refused beyond.
    """

    cdn: bool = False
    cdn_url_seconds: float = 3600
    page_size: int = 1000
    bandwidth: float | None = None
    latency_seconds: float = 0
    xet_cas_url: str | None = None
    quotas: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class State:
    """The content of the server between two resets. Hold ``lock`` while reading or changing repositories."""

    endpoint: str
    cdn_endpoint: str
    settings: Settings
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    lock: threading.RLock = field(default_factory=threading.RLock)
    repos: dict[str, Repo] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, Account] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    log: RequestLog = field(default_factory=RequestLog)
    crashes: list[str] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    bandwidth: Bandwidth = field(init=False)
    quotas: Quotas = field(init=False)

    def __post_init__(self) -> None:
        self.bandwidth = Bandwidth(self.settings.bandwidth)
        self.quotas = Quotas(self.settings.quotas)

    def apply(self, settings: Settings) -> None:
        """Change the settings from the next request on."""
        self.settings = settings
        self.bandwidth = Bandwidth(settings.bandwidth)
        self.quotas = Quotas(settings.quotas)

    def now(self) -> str:
        """Return the present time, in the Hub's form."""
        return timestamp(self.clock())

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until this state is over."""
        if seconds > 0:
            self.over.wait(seconds)

    @property
    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, for the log."""
        return time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request on its way through the routes."""

    state: State
    request: Request
    account: Account | None

    def repo(self, org: str, name: str) -> Repo:
        """Return a repository that the caller may know of.

        Raises:
            HubError: it does not exist, is hidden from the caller, or is disabled.
        """
        return require_visible(self.account, self.state.repos.get(f"{org}/{name}"))

    def readable_repo(self, org: str, name: str) -> Repo:
        """Return a repository whose files the caller may read.

        Raises:
            HubError: as ``repo``, or the repository is gated.
        """
        repo = self.repo(org, name)
        require_content(self.account, repo, self.state.endpoint)
        return repo
