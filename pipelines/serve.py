"""Runs ``hubaudit serve``: one process that listens to webhooks of the Hub and audits what they name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import TextIO

import uvicorn

from pipelines.publish import Publisher
from pipelines.serving.app import Listening, make_app
from pipelines.serving.queue import Queue
from pipelines.serving.worker import Workers
from scanner.errors import CouldNotConclude

CONNECTIONS = 200
"""At a time; more are answered with 503 by the server itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """How to serve.

    ``queue`` is the SQLite file, ``reports`` the folder for the newest report of each repository. ``bot`` is the user
    that comments speak to; the account of the token when None. ``form`` is what to publish after a new commit.
    """

    host: str
    port: int
    queue: Path
    reports: Path
    secret: str
    bot: str | None = None
    form: str = "none"
    workers: int = 1
    queue_size: int = 1000
    timeout_seconds: float = 3600.0


def serve(settings: ServeSettings, publisher: Publisher, environment: Mapping[str, str], ready: TextIO) -> None:
    """Serve until a signal ends it; ``ready`` then gets one line with the address.

    Raises:
        QueueError: the queue's file cannot be used.
        CouldNotConclude: the token is refused, or nobody can listen at that address.
        OSError: the folder is not writable.
    """
    account = publisher.account()
    queue = Queue(settings.queue, limit=settings.queue_size)
    workers = Workers(
        queue,
        publisher,
        reports=settings.reports,
        environment=environment,
        form=settings.form,
        timeout_seconds=settings.timeout_seconds,
        count=settings.workers,
    )
    # Without an account nobody could answer a comment.
    listening = Listening(
        secret=settings.secret,
        bot=(settings.bot or account.user) if account else None,
        bot_id=account.id if account else None,
    )
    config = uvicorn.Config(
        make_app(queue, workers, listening),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=10,
        lifespan="on",
    )
    server = _Server(config, ready)
    try:
        server.run()
    except KeyboardInterrupt:  # raised once more after a Ctrl-C that has ended it in good order
        pass
    except SystemExit:
        if server.started:
            raise
        where = f"{settings.host} port {settings.port}"
        raise CouldNotConclude(f"Nothing can be served at {where}; give another --host or --port.") from None


class _Server(uvicorn.Server):
    """Says where it listens, which with port 0 nobody knew before."""

    def __init__(self, config: uvicorn.Config, ready: TextIO) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        for server in getattr(self, "servers", ()):
            host, port = server.sockets[0].getsockname()[:2]
            self._ready.write(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}\n")
            self._ready.flush()
