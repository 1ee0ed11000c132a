"""The HTTP client that huggingface_hub uses for us: time limits, retries, counts, and no token for strangers.

The client library retries only some of its calls and gives most of them no timeout at all. ``HubClient`` therefore
does both for every call, in ``send``, the one method that all requests of ``httpx2`` pass. What it gives up on, it
raises as an error of ``scanner.errors``: the client library retries httpx errors alone, so nothing is retried twice.

Requests that write are sent once, with time limits. So is everything that other code of the process asks through the
same client outside a ``reading`` block.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

# All of these are read when huggingface_hub and transformers are imported: no usage pings, and no background thread
# that posts a repository's name and the token to a conversion service.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

import httpx2
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.utils._http import hf_request_event_hook

from scanner.errors import RequestsSpent
from scanner.patience import Patience, ReadPolicy
from scanner.quota import Governor, allowance_of, bucket_of

RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
RETRIED_ERRORS = (
    httpx2.TimeoutException,
    httpx2.NetworkError,
    httpx2.RemoteProtocolError,
    httpx2.ProxyError,
    httpx2.DecodingError,
)
ONCE = "hubaudit.once"
"""Request extension: do not retry, the caller does."""
WRITE_TIMEOUT_SECONDS = 60.0
"""Outside a ``reading`` block: a commit may keep the server busy for longer than any read."""
MAX_ANSWER_BYTES = 64 << 20
"""Of an API answer held in memory; a page of 1,000 tree entries takes about 0.4 MB."""

Origin = tuple[str, str, int]
_DEFAULT_PORTS = {"http": 80, "https": 443}
_install_lock = threading.Lock()


class Traffic:
    """What one reader has cost so far. Thread-safe."""

    def __init__(self, most_requests: int | None = None) -> None:
        """Begin at zero; ``most_requests`` may be sent, any number when None."""
        self._lock = threading.Lock()
        self._most_requests = most_requests
        self.requests = 0
        self.bytes_received = 0

    def spend_request(self) -> None:
        """Count one request that is about to be sent.

        Raises:
            RequestsSpent: as many as allowed have been sent.
        """
        with self._lock:
            if self._most_requests is not None and self.requests >= self._most_requests:
                raise RequestsSpent(
                    f"All {self._most_requests:,} requests that --max-requests allows were sent; allow more, or "
                    "leave the option out, to read the rest."
                )
            self.requests += 1

    def add(self, *, received: int = 0) -> None:
        """Count body bytes received."""
        with self._lock:
            self.bytes_received += received


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """For whom a request is sent: its limits, its counters, and the only origin that may see its token.

    ``governor`` is asked before each request to that origin, when there is one.
    """

    policy: ReadPolicy = field(default_factory=ReadPolicy)
    traffic: Traffic = field(default_factory=Traffic)
    origin: Origin
    governor: Governor | None = None


_scope: ContextVar[Scope | None] = ContextVar("hub_scope", default=None)


@contextmanager
def reading(scope: Scope) -> Iterator[None]:
    """Send the requests of this block, in this thread, under a scope."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def origin_of(url: str | httpx2.URL) -> Origin:
    """Scheme, host and port of a URL: what a token is bound to.

    Raises:
        httpx2.InvalidURL: it is not a URL.
    """
    parsed = httpx2.URL(url)
    return parsed.scheme, parsed.host.lower(), parsed.port or _DEFAULT_PORTS.get(parsed.scheme, 0)


def session() -> httpx2.Client:
    """Return the shared client of huggingface_hub, which is a ``HubClient`` from the first call on."""
    with _install_lock:
        if not isinstance(get_session(), HubClient):
            # The variable above comes too late where huggingface_hub was imported before this module.
            constants.HF_HUB_DISABLE_TELEMETRY = True
            set_client_factory(HubClient)
        return get_session()


class HubClient(httpx2.Client):
    """An httpx client that never waits without a limit and that repeats idempotent reads."""

    def __init__(self) -> None:
        super().__init__(
            event_hooks={"request": [hf_request_event_hook, _count_and_guard], "response": [_learn_quota]},
            follow_redirects=True,
            timeout=None,  # `send` fills it in, for each request by its scope
        )

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request within its time limits, and again while that may help.

        Args:
            request: the request; its missing time limits are filled in.
            stream: leave the body to the caller, who then also looks after its failures.
            options: ``auth`` and ``follow_redirects``, as in httpx.

        Raises:
            HubRateLimited: still refused with 429 after all waits.
            HubUnreachable: network failure, time limit or server error after all attempts.
            httpx2.HTTPError: the same at once, for requests that write or that carry ``ONCE``.
        """
        scope = _scope.get()
        _fill_timeouts(request, scope.policy.timeout_seconds if scope else WRITE_TIMEOUT_SECONDS)
        if scope is None:
            return super().send(request, stream=stream, **options)
        if not _repeatable(request):
            return self._send_once(request, scope, stream=stream, **options)
        patience = Patience(scope.policy, f"{request.url.scheme}://{request.url.host}{request.url.path}"[:300])
        while True:
            try:
                response = self._send_once(request, scope, stream=stream, **options)
            except RETRIED_ERRORS as error:
                patience.wait(problem_of(error))
                continue
            if response.status_code not in RETRIED_STATUS:
                return response
            response.close()
            patience.wait(
                f"the server answered {response.status_code}",
                status=response.status_code,
                headers=response.headers,
            )

    def _send_once(self, request: httpx2.Request, scope: Scope, *, stream: bool, **options: Any) -> httpx2.Response:
        response = super().send(request, stream=True, **options)
        if stream:
            return response
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _BoundedBody(response.stream, scope)
        try:
            response.read()
        except BaseException:
            response.close()
            raise
        return response


class _BoundedBody(httpx2.SyncByteStream):
    """A body that ends with an error when it grows too large or takes too long, piece by piece or not."""

    def __init__(self, stream: httpx2.SyncByteStream, scope: Scope) -> None:
        self._stream = stream
        self._scope = scope

    def __iter__(self) -> Iterator[bytes]:
        begun, received = time.monotonic(), 0
        for piece in self._stream:
            received += len(piece)
            self._scope.traffic.add(received=len(piece))
            if received > MAX_ANSWER_BYTES:
                raise httpx2.RemoteProtocolError(f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes")
            if time.monotonic() - begun > self._scope.policy.body_seconds(received):
                raise httpx2.ReadTimeout("the answer arrives too slowly")
            yield piece

    def close(self) -> None:
        self._stream.close()


def problem_of(error: Exception) -> str:
    """Say what went wrong on the network, as the tail of a sentence, without the URL."""
    if isinstance(error, httpx2.TimeoutException):
        return str(error) if "slowly" in str(error) else "no answer within the time limit"
    text = " ".join(str(error).split())[:200]
    return text.rstrip(".") or type(error).__name__


def _fill_timeouts(request: httpx2.Request, seconds: float) -> None:
    """Give every time limit a value; several client calls pass ``timeout=None``. Shorter ones are kept."""
    given = request.extensions.get("timeout") or {}
    limits = {kind: min(given.get(kind) or seconds, seconds) for kind in ("connect", "read", "write", "pool")}
    request.extensions = {**request.extensions, "timeout": limits}


def _repeatable(request: httpx2.Request) -> bool:
    """Whether sending the request twice does no more than sending it once, and nobody else repeats it."""
    if request.extensions.get(ONCE):
        return False
    # A question that is asked by POST because its list of paths is long.
    return request.method in {"GET", "HEAD"} or (request.method == "POST" and "/paths-info/" in request.url.path)


def _count_and_guard(request: httpx2.Request) -> None:
    """Count each request, redirects included, and take the token off those that leave the Hub."""
    scope = _scope.get()
    if scope is None:
        return
    scope.traffic.spend_request()
    # httpx drops the token on redirects, but not on the `Link: rel="next"` URLs that the client library follows.
    if origin_of(request.url) != scope.origin:
        request.headers.pop("Authorization", None)
    elif scope.governor is not None:
        scope.governor.admit(bucket_of(request.url.path))


def _learn_quota(response: httpx2.Response) -> None:
    """Tell the governor what the Hub says of its quota."""
    scope = _scope.get()
    if scope is None or scope.governor is None or origin_of(response.request.url) != scope.origin:
        return
    allowance = allowance_of(response.headers)
    if allowance is not None:
        scope.governor.learn(bucket_of(response.request.url.path), allowance)
