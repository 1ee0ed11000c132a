"""The Hub as a pytest fixture."""

import shutil
from collections.abc import Iterator

import pytest

from localhub.environment import hub_home, shared_server
from localhub.server import LocalHub


@pytest.fixture
def hub_server() -> Iterator[LocalHub]:
    """Yield the server, freshly reset, with an empty client cache; fail on any bug that it met."""
    server = shared_server()
    server.reset()
    shutil.rmtree(hub_home() / "hub", ignore_errors=True)
    yield server
    assert server.crashes == ()
    server.reset()
