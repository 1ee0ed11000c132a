"""One HTTP answer into one buffer, with nothing taken on trust: status, range, encoding, length, pace.

A server may ignore ``Range`` and send the whole file, cut the body short, send too much, or trickle; the client
library notices none of it. Every such answer is a ``BadAnswer``, and the caller decides whether to ask again.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Event

import httpx2

from scanner.hub_transport import ONCE, Scope
from scanner.patience import ReadStopped

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


class BadAnswer(Exception):  # noqa: N818
    """The answer is not what was asked for. Status, headers and URL are those of the answer."""

    def __init__(self, problem: str, response: httpx2.Response) -> None:
        super().__init__(problem)
        self.status = response.status_code
        self.headers = response.headers
        self.url = response.url


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The bytes ``start`` (included) to ``end`` (excluded) of a file that has ``total`` bytes."""

    start: int
    end: int
    total: int

    def __len__(self) -> int:
        return self.end - self.start


def fetch_span(
    client: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    span: Span,
    into: memoryview,
    *,
    scope: Scope,
    stop: Event | None = None,
) -> None:
    """Fill ``into`` (as long as the span, which is not empty) with the bytes of the span. One attempt.

    Raises:
        BadAnswer: the server answered, but not with exactly these bytes.
        ReadStopped: ``stop`` was set.
        httpx2.TransportError: the network failed, or a time limit passed.
    """
    asked = {**headers, "Range": f"bytes={span.start}-{span.end - 1}", "Accept-Encoding": "identity"}
    with client.stream("GET", url, headers=asked, follow_redirects=False, extensions={ONCE: True}) as response:
        _check_head(response, span)
        filled = 0
        for piece in _paced(response.iter_raw(), len(span), scope, stop):
            if filled + len(piece) > len(span):
                raise BadAnswer("the server sent more than the range that was asked for", response)
            into[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled < len(span):
            raise BadAnswer(f"the answer ended after {filled:,} of {len(span):,} bytes", response)


def fetch_whole(
    client: httpx2.Client, url: str, headers: Mapping[str, str], *, limit_bytes: int, scope: Scope
) -> bytes | None:
    """Return a whole small file, following redirects, or None when it is larger than the limit. One attempt.

    Raises:
        BadAnswer: any status but 200.
        httpx2.TransportError, httpx2.DecodingError: the network failed, a time limit passed, or the body is garbled.
    """
    asked = {**headers, "Accept-Encoding": "identity"}
    with client.stream("GET", url, headers=asked, follow_redirects=True, extensions={ONCE: True}) as response:
        if response.status_code != 200:
            raise _unexpected(response)
        content = bytearray()
        for piece in _paced(response.iter_bytes(), limit_bytes, scope, None):
            content += piece
            if len(content) > limit_bytes:
                return None
        return bytes(content)


def _check_head(response: httpx2.Response, span: Span) -> None:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BadAnswer("the server sent compressed bytes although none were asked for", response)
    whole = span.start == 0 and span.end == span.total
    if response.status_code == 200:
        if whole and response.headers.get("Content-Length") == str(span.total):
            return
        raise BadAnswer("the server ignores byte ranges", response)
    if response.status_code != 206:
        raise _unexpected(response)
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    stated = match and (int(match[1]), int(match[2]) + 1, span.total if match[3] == "*" else int(match[3]))
    if stated != (span.start, span.end, span.total):
        raise BadAnswer("the server sent another range than the one asked for", response)


def _unexpected(response: httpx2.Response) -> BadAnswer:
    return BadAnswer(f"the server answered {response.status_code}", response)


def _paced(pieces: Iterator[bytes], n_bytes: int, scope: Scope, stop: Event | None) -> Iterator[bytes]:
    """Pass the pieces on, within the time that ``n_bytes`` may take and until the caller stops."""
    deadline = time.monotonic() + scope.policy.body_seconds(n_bytes)
    for piece in pieces:
        scope.traffic.add(received=len(piece))
        if stop is not None and stop.is_set():
            raise ReadStopped
        if time.monotonic() > deadline:
            raise httpx2.ReadTimeout("the answer arrives too slowly")
        yield piece
