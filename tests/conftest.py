"""The environment of every test, set before anything imports huggingface_hub, which reads it once."""

import os
import sys

from hypothesis import HealthCheck, settings
from localhub.environment import point_client_at_server

if "huggingface_hub" in sys.modules:
    raise RuntimeError("huggingface_hub was imported before the tests could point it at the local server")
point_client_at_server(os.environ)

# No test is timed: a busy machine makes nothing wrong.
settings.register_profile(
    "untimed",
    settings.get_profile("ci" if "CI" in os.environ else "default"),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")

pytest_plugins = ["localhub.fixtures"]
