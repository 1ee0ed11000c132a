"""The environment of every test, set before anything imports huggingface_hub, which reads it once."""

import os
import sys

from localhub.environment import point_client_at_server

if "huggingface_hub" in sys.modules:
    raise RuntimeError("huggingface_hub was imported before the tests could point it at the local server")
point_client_at_server(os.environ)

pytest_plugins = ["localhub.fixtures"]
