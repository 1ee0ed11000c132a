"""Keeps models of two bases apart: a toy base that is trained again is another one, up to rounding and beyond."""

import hashlib
import json
from pathlib import Path

from benchmarks.zoo.tiers import Tier

FILE = "bases.json"


class OtherBaseError(Exception):
    """What a folder holds of a tier was made from another base; the sentence says what to do."""


def hold_to_base(folder: Path, tier: Tier) -> None:
    """Make sure that all models of a tier in a folder start from one base; the first call says which.

    Args:
        folder: of models or of observations; ``bases.json`` in it holds the SHA-256 of each tier's base.
        tier: whose base is about to be used.

    Raises:
        OtherBaseError: the folder's models of this tier start from another base.
    """
    file = folder / FILE
    held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    with (tier.base / "model.safetensors").open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if held.setdefault(tier.name, found) != found:
        raise OtherBaseError(
            f"What {folder} holds of the tier {tier.name} was made from another base (SHA-256 {held[tier.name][:12]}…, "
            f"here {found[:12]}…): name a folder of your own for models and results."
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
