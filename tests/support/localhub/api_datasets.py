"""Datasets: the same routes as for models, under another name. A dataset is kept as ``datasets/org/name``."""

from collections.abc import Callable

from localhub.state import Call
from localhub.wire import Reply

PREFIX = "datasets/"


def as_dataset(answer: Callable[..., Reply]) -> Callable[..., Reply]:
    """Let a route of models answer for datasets."""

    def route(call: Call, org: str, **groups: str) -> Reply:
        return answer(call, f"{PREFIX}{org}", **groups)

    return route
