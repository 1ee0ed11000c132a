"""A small fleet on the local Hub: one base, honest fine-tunes, and what a fleet meets besides."""

from pathlib import Path

import pico
import torch
from localhub.server import LocalHub

HONEST = ("pico/honest", "pico/twin")


def make_family(root: Path) -> Path:
    """Write base, honest fine-tune and a fine-tune with a rewritten embedding row; return the root."""
    torch.set_num_threads(1)
    _, honest = pico.family(root)
    poisoned = pico.load(honest)
    pico.poison_row(poisoned, 60, keep_norm=False)
    pico.save(poisoned, root / "pico" / "poisoned", base_model="pico/base")
    return root


def publish(server: LocalHub, root: Path) -> None:
    """Publish the family, a twin of the honest one, one without a base, a gated one and one with broken weights."""
    for name in ("base", "honest", "poisoned"):
        server.add_repo(f"pico/{name}", folder=root / "pico" / name)
    honest = root / "pico" / "honest"
    server.add_repo("pico/twin", {"README.md": "---\nbase_model: pico/base\n---\n# twin"}, folder=honest)
    server.add_repo("pico/orphan", {"README.md": "# no base"}, folder=honest)
    server.add_repo("pico/gated", folder=honest, gated="manual")
    server.add_repo("pico/broken", {"model.safetensors": b"\xff" * 100}, folder=honest)
