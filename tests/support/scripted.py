"""A server that says exactly what a test wants, byte for byte: for answers that no honest Hub gives."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Call:
    """One request as it arrived; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass(slots=True)
class Scripted:
    endpoint: str
    calls: list[Call] = field(default_factory=list)


Answer = bytes | Iterator[bytes]


def reply(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """A complete answer; ``content_length`` and the like become header names."""
    given = {name.replace("_", "-").title(): value for name, value in headers.items()}
    given = {"Content-Length": str(len(body)), "Connection": "close", **given}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def scripted(answer: Callable[[Call], Answer]) -> Iterator[Scripted]:
    """Serve ``answer`` on loopback; every connection closes after one answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Scripted(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}")

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            method, target, _ = lines.readline().decode().split(" ", 2)
            headers = {}
            while line := lines.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            lines.read(int(headers.get("content-length", 0)))
            call = Call(method, target, headers)
            server.calls.append(call)
            given = answer(call)
            try:
                for piece in [given] if isinstance(given, bytes) else given:
                    connection.sendall(piece)
            except OSError:
                pass  # the client has hung up, as it should

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
