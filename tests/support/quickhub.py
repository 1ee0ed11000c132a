"""A reader of the Hub that gives up quickly, so that tests of failures are fast."""

from typing import Any

from localhub.server import LocalHub

from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.refs import parse_spec


def quick_hub(server: LocalHub | str, **changes: Any) -> Hub:
    """A ``Hub`` with pauses of milliseconds, three attempts and a limit of ten seconds of silence, longer than any busy machine."""
    endpoint = server if isinstance(server, str) else server.endpoint
    limits = {"timeout_seconds": 10.0, "first_wait_seconds": 0.002, "max_wait_seconds": 3.0, "attempts": 3}
    return Hub(endpoint, **{**limits, **changes})


def pinned(hub: Hub, text: str) -> RepoRef:
    """The ref that a text names."""
    return hub.resolve(parse_spec(text, endpoint=hub.endpoint))
