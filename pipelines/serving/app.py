"""The HTTP side of ``hubaudit serve``: takes events, answers at once, tells how it is doing.

The secret is compared before the body is read. No answer and no metric names a repository: whoever can reach the
port learns nothing about what is audited.
"""

import hmac
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.serving.events import MAX_EVENT_BYTES, BadEvent, Ignored, read_event
from pipelines.serving.queue import Entered, Queue
from pipelines.serving.worker import Workers

FULL_RETRY_SECONDS = 300
_ANSWERS: dict[Entered, tuple[int, str]] = {
    "queued": (202, "an audit is queued"),
    "merged": (202, "an audit that waits already will include this"),
    "known": (200, "this event has been taken before"),
    "too_often": (429, "this repository was asked about too often today"),
    "full": (503, "too many audits are waiting; come again later"),
}

log = logging.getLogger("hubaudit.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """To whom the server listens: the shared secret, and the bot's name and id (None: not to comments)."""

    secret: str
    bot: str | None = None
    bot_id: str | None = None

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError("a webhook without a secret is open to everybody")

    def __repr__(self) -> str:
        return f"Listening(bot={self.bot!r})"


def make_app(
    queue: Queue, workers: Workers, listening: Listening, *, clock: Callable[[], float] = time.time
) -> Starlette:
    """Return the application; it starts the workers when the server starts, and stops them with it."""
    events: Counter[str] = Counter()

    async def webhook(request: Request) -> Response:
        if not _knows_secret(request.headers.get("x-webhook-secret"), listening.secret):
            events["refused"] += 1
            return _answer(401, "the secret is missing or wrong")
        try:
            body = await _bounded_body(request)
            found = read_event(body, bot=listening.bot, bot_id=listening.bot_id)
        except _TooLarge:
            events["invalid"] += 1
            return _answer(413, f"an event has at most {MAX_EVENT_BYTES} bytes", headers={"Connection": "close"})
        except (BadEvent, ClientDisconnect) as error:
            events["invalid"] += 1
            return _answer(400, str(error) or "the event broke off")
        if isinstance(found, Ignored):
            events["ignored"] += 1
            return _answer(200, found.why)
        entered = await run_in_threadpool(queue.enter, found, now=clock())
        events[entered] += 1
        workers.wake()
        status, text = _ANSWERS[entered]
        return _answer(status, text, headers={"Retry-After": str(FULL_RETRY_SECONDS)} if status >= 429 else None)

    async def health(_request: Request) -> Response:
        counts = await run_in_threadpool(queue.counts)
        state = {"status": "ok" if workers.alive else "failing", "due": counts["due"], "running": counts["running"]}
        return JSONResponse(state, status_code=200 if workers.alive else 503)

    async def metrics(_request: Request) -> Response:
        counts = await run_in_threadpool(queue.counts)
        oldest = await run_in_threadpool(queue.oldest_due_seconds, now=clock())
        text = metrics_text(events=events, jobs=counts, oldest_due_seconds=oldest, workers=workers)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        workers.start()
        try:
            yield
        finally:
            await run_in_threadpool(workers.stop)
            queue.close()

    routes = [
        Route("/webhook", webhook, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def metrics_text(*, events: Counter[str], jobs: dict[str, int], oldest_due_seconds: float, workers: Workers) -> str:
    """Return the metrics in the text format of Prometheus (version 0.0.4)."""
    with workers.tally.lock:
        endings, seconds = dict(workers.tally.endings), workers.tally.seconds
    lines = [
        "# HELP hubaudit_events_total Events received, by what became of them.",
        "# TYPE hubaudit_events_total counter",
    ]
    results = ("queued", "merged", "known", "ignored", "refused", "invalid", "too_often", "full")
    lines += [f'hubaudit_events_total{{result="{result}"}} {events[result]}' for result in results]
    lines += ["# HELP hubaudit_jobs Audits in the queue's file, by state.", "# TYPE hubaudit_jobs gauge"]
    lines += [f'hubaudit_jobs{{state="{state}"}} {count}' for state, count in jobs.items()]
    lines += ["# HELP hubaudit_attempts_total Attempts at audits, by ending.", "# TYPE hubaudit_attempts_total counter"]
    kinds = ("done", "retried", "failed", "interrupted")
    lines += [f'hubaudit_attempts_total{{ending="{kind}"}} {endings.get(kind, 0)}' for kind in kinds]
    lines += [
        "# HELP hubaudit_attempt_seconds_total Time spent on attempts.",
        "# TYPE hubaudit_attempt_seconds_total counter",
        f"hubaudit_attempt_seconds_total {seconds:.3f}",
        "# HELP hubaudit_oldest_due_seconds For how long the first audit in the queue has waited.",
        "# TYPE hubaudit_oldest_due_seconds gauge",
        f"hubaudit_oldest_due_seconds {oldest_due_seconds:.3f}",
    ]
    return "\n".join(lines) + "\n"


class _TooLarge(Exception):  # noqa: N818
    """The body is larger than any event."""


async def _bounded_body(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > MAX_EVENT_BYTES:
        raise _TooLarge
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_EVENT_BYTES:
            raise _TooLarge
    return bytes(body)


def _knows_secret(given: str | None, secret: str) -> bool:
    """Compare in a time that does not depend on where the two differ; headers arrive decoded as Latin-1."""
    return hmac.compare_digest((given or "").encode("latin-1"), secret.encode())


def _answer(status: int, text: str, *, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"queued": status == 202, "why": text}, status_code=status, headers=headers)
