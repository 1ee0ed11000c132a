"""What crosses between sockets and routes: requests, replies and Hub errors."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import Any, Self
from urllib.parse import parse_qs

from localhub.blobs import Content


class HubError(Exception):
    """An answer other than success; clients pick their exception class by ``code`` (``X-Error-Code``)."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})

    def reply(self) -> "Reply":
        """Return the error in the Hub's form: JSON, with code and message in headers too."""
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return Reply.of_json({"error": self.message}, status=self.status, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. ``path`` is raw: percent-encoded and without the query."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: "Message[str, str]"
    body: bytes
    range: str | None

    def first(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        return self.query[name][0] if name in self.query else None

    def flag(self, name: str) -> bool:
        """Tell whether a query parameter is ``true`` or ``1``."""
        return (self.first(name) or "").lower() in {"1", "true"}

    def count(self, name: str, default: int) -> int:
        """Return a query parameter as an integer of at least 0.

        Raises:
            HubError: 400 when it is none.
        """
        text = self.first(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise HubError(400, f'"{name}" must be a number')
        return int(text)

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            HubError: 400 when it is none.
        """
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise HubError(400, "The body is not JSON") from error
        if not isinstance(value, dict):
            raise HubError(400, "The body is not a JSON object")
        return value

    def form(self) -> dict[str, list[str]]:
        """Return a form-encoded body."""
        return parse_qs(self.body.decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The half-open interval ``[start, stop)``, in bytes, of some content."""

    content: Content
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer; ``body`` is left out on the wire when the request was a HEAD."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Slice = b""

    @classmethod
    def of_json(cls, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Return ``value`` as JSON."""
        return cls(
            status=status,
            headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
            body=json.dumps(value).encode(),
        )

    def with_headers(self, **headers: str) -> Self:
        """Return the same reply with more headers (underscores stand for hyphens)."""
        added = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **added})


def serve_content(content: Content, size: int, wanted: str | None, headers: Mapping[str, str]) -> Reply:
    """Return ``content`` whole (200), one range of it (206), or a refusal (416).

    ``wanted`` is the Range header. Forms that are not a single byte range are ignored, as RFC 9110 §14.2 allows.
    """
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    match = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", (wanted or "").strip())
    if match is None or match.groups() == ("", ""):
        return Reply(headers=headers, body=Slice(content=content, start=0, stop=size))
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size or stop <= start:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(status=206, headers=headers, body=Slice(content=content, start=start, stop=stop))
