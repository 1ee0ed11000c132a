"""One server per process, because ``HF_ENDPOINT`` is read once, when the client is imported."""

import atexit
import shutil
import tempfile
from collections.abc import MutableMapping
from functools import cache
from pathlib import Path

from localhub.server import LocalHub

TOKENS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
)


@cache
def shared_server() -> LocalHub:
    """Return the server of this process, started on the first call."""
    server = LocalHub()
    atexit.register(server.close)
    return server


@cache
def hub_home() -> Path:
    """Return the ``HF_HOME`` of this process, removed at its end."""
    home = Path(tempfile.mkdtemp(prefix="localhub-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def point_client_at_server(environ: MutableMapping[str, str]) -> None:
    """Set what huggingface_hub reads at import: the endpoint, an empty home, no token, no telemetry, no Xet.

    Our own variables go as well: a test means the defaults unless it says otherwise.
    """
    for name in [name for name in environ if name in TOKENS or name.startswith("HUBAUDIT_")]:
        del environ[name]
    environ["HF_ENDPOINT"] = shared_server().endpoint
    environ["HF_HOME"] = str(hub_home())
    # What an interrupted scan leaves must not reach the user's own cache, nor the next test run.
    environ["HUBAUDIT_CACHE"] = str(hub_home() / "hubaudit")
    for name in (
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_HUB_DISABLE_XET",
        "HF_HUB_DISABLE_PROGRESS_BARS",
        # transformers would otherwise send the token of a .bin repository to a conversion service.
        "DISABLE_SAFETENSORS_CONVERSION",
    ):
        environ[name] = "1"
    # A proxy of the surroundings must not see, or break, traffic to loopback.
    environ["NO_PROXY"] = environ["no_proxy"] = "127.0.0.1,localhost"
