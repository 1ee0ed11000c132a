"""Three pico models as repositories of the local Hub, made once per process: a base, an honest and a poisoned fine-tune."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pico
from localhub.server import LocalHub


@cache
def pico_folder() -> Path:
    """Return the folder that holds ``pico/base``, ``pico/honest`` and ``pico/poisoned``."""
    root = Path(tempfile.mkdtemp(prefix="picozoo-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    pico.family(root)
    edited = pico.load(root / "pico" / "honest")
    pico.poison_row(edited, 17)
    pico.save(edited, root / "pico" / "poisoned", base_model="pico/base")
    return root


def publish_pico(server: LocalHub) -> Path:
    """Publish the three on a server, under their own names, and return their folder."""
    folder = pico_folder() / "pico"
    for path in folder.iterdir():
        server.add_repo(f"pico/{path.name}", folder=path)
    return folder
