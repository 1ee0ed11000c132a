"""Sockets: reading requests, applying faults, writing replies."""

import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from localhub.accounts import authenticate
from localhub.blobs import InMemory
from localhub.faults import Drop, Fault, IgnoreRange, LoseReply, ShortRange, Stall, Status, Truncate, WrongRange
from localhub.requestlog import Record, Side
from localhub.routes import answer
from localhub.state import Call, State
from localhub.wire import HubError, Reply, Request, Slice


class Listener(ThreadingHTTPServer):
    """One port. Connections outlive resets, so each request asks anew for the state."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, side: Side, state: Callable[[], State]) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.side = side
        self.state = state

    @property
    def endpoint(self) -> str:
        """The address of the port, as a URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong, unless it is merely that a client hung up."""
        report = traceback.format_exc()
        if not any(kind in report for kind in ("ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError")):
            self.state().crashes.append(report)


class Connection(BaseHTTPRequestHandler):
    """One client connection, kept alive from request to request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener
    connection: socket.socket

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent; the request log is for asking."""

    def handle_request(self) -> None:
        """Answer one request, or spoil it as planned."""
        state = self.server.state()
        record = self._record(state)
        request = self._request(self._body())
        fault = state.faults.take(request.method, self.path, self.headers.get("Range", ""))
        if isinstance(fault, Drop):
            self.close_connection = True
            return
        state.pause(state.settings.latency_seconds)
        if isinstance(fault, Stall) and fault.after_bytes is None:
            state.pause(fault.seconds)
        stated, refused = state.quotas.count(request.path) if self.server.side == "hub" else ({}, False)
        if refused:
            fault = Status(code=429, message="Too many requests")
        reply = self._reply(state, request, fault)
        reply = replace(reply, headers={**stated, **reply.headers})
        if isinstance(fault, LoseReply):
            self.close_connection = True
            return
        self._send(state, record, reply, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815 - http.server's names

    def _record(self, state: State) -> Record:
        record = Record(
            side=self.server.side,
            method=self.command,
            target=self.path,
            range=self.headers.get("Range"),
            user_agent=self.headers.get("User-Agent", ""),
            authorized="Authorization" in self.headers,
            started=state.monotonic,
        )
        state.log.add(record)
        return record

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _request(self, body: bytes) -> Request:
        target = urlsplit(self.path)
        return Request(
            method=self.command,
            path=target.path,
            query=parse_qs(target.query, keep_blank_values=True),
            headers=self.headers,
            body=body,
            range=self.headers.get("Range"),
        )

    def _reply(self, state: State, request: Request, fault: Fault | None) -> Reply:
        if isinstance(fault, Status):
            return HubError(fault.code, fault.message, headers=fault.headers).reply()
        if isinstance(fault, IgnoreRange):
            request = replace(request, range=None)
        try:
            with state.lock:
                account = authenticate(state.tokens, self.headers.get("Authorization"))
                reply = answer(Call(state=state, request=request, account=account), self.server.side)
        except HubError as error:
            reply = error.reply()
        except Exception:  # noqa: BLE001 - a bug here must reach the test that met it, as a crash and a 500
            state.crashes.append(f"{request.method} {self.path}\n{traceback.format_exc()}")
            reply = HubError(500, "Internal error of the local server").reply()
        return _with_wrong_range(reply, fault)

    def _send(self, state: State, record: Record, reply: Reply, fault: Fault | None) -> None:
        body = reply.body
        if isinstance(body, bytes):
            body = Slice(content=InMemory(body), start=0, stop=len(body))
        record.status = reply.status
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, _header_text(value))
        self.end_headers()
        if self.command == "HEAD":
            return

        def pace(size: int) -> None:
            state.bandwidth.take(size)
            record.sent += size

        stop = body.stop
        if isinstance(fault, Truncate):
            stop = min(stop, body.start + fault.after_bytes)
            self.close_connection = True
        middle = body.start
        if isinstance(fault, Stall) and fault.after_bytes is not None:
            middle = min(stop, body.start + fault.after_bytes)
            body.content.send(self.connection, body.start, middle, pace)
            state.pause(fault.seconds)
        body.content.send(self.connection, middle, stop, pace)


def _with_wrong_range(reply: Reply, fault: Fault | None) -> Reply:
    if reply.status != 206 or not isinstance(reply.body, Slice):
        return reply
    body = reply.body
    start, stop = body.start, body.stop
    if isinstance(fault, ShortRange):
        stop = max(start + 1, stop - fault.missing_bytes)
        body = replace(body, stop=stop)
    elif isinstance(fault, WrongRange):
        start, stop = start + fault.shift_bytes, stop + fault.shift_bytes
    else:
        return reply
    total = reply.headers["Content-Range"].rpartition("/")[2]
    headers = {**reply.headers, "Content-Range": f"bytes {start}-{stop - 1}/{total}"}
    return replace(reply, headers=headers, body=body)


def _header_text(value: str) -> str:
    """Return a header value on one line of ASCII, whatever a hostile file name put into it."""
    return value.encode("ascii", "backslashreplace").decode().replace("\r", " ").replace("\n", " ")
