"""Models of two bases are never counted together."""

from pathlib import Path

import pytest
from zoo_pico import make_tier

from benchmarks.zoo.same_base import OtherBaseError, hold_to_base


def test_a_folder_belongs_to_the_base_that_came_first(tmp_path: Path) -> None:
    tier = make_tier(tmp_path / "first")
    hold_to_base(tmp_path / "bank", tier)
    hold_to_base(tmp_path / "bank", tier)
    weights = tier.base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(OtherBaseError, match="another base"):
        hold_to_base(tmp_path / "bank", tier)
    hold_to_base(tmp_path / "own", tier)
