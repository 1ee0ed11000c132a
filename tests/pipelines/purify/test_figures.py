"""The QQ plot: drawn from the log that a method leaves, the same bytes each time, and nothing without data."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gamma

from pipelines.purify.figures import FIGURE_FILE, find_qq, write_qq
from pipelines.purify.fine_purifying import gamma_quantiles

NAMESPACE = {"svg": "http://www.w3.org/2000/svg"}


def log_of(drift: np.ndarray) -> dict:
    return {"indicator": "delta2_over_H", "qq": gamma_quantiles(drift)}


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return gamma.rvs(0.5, scale=6.0, size=20_000, random_state=3)


def points(path: Path) -> list[tuple[float, float]]:
    """Where the markers lie, in the drawing's own units."""
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    return [(float(u.get("x", "nan")), float(u.get("y", "nan"))) for u in root.iterfind(".//svg:use", NAMESPACE)]


def test_every_quantile_is_drawn_and_words_are_text(tmp_path: Path, clean: np.ndarray) -> None:
    path = write_qq(tmp_path, log_of(clean))
    assert path == tmp_path / FIGURE_FILE
    drawn = points(path)
    assert len(drawn) >= 99
    assert "the law of clean drift" in path.read_text(encoding="utf-8")
    first = path.read_bytes()
    write_qq(tmp_path, log_of(clean))
    assert path.read_bytes() == first


def test_dimensions_that_drifted_too_far_bend_it(tmp_path: Path, clean: np.ndarray) -> None:
    """A twentieth of the dimensions drift ten thousand times as far: the line holds below and leaves above."""
    poisoned = clean.copy()
    poisoned[::20] *= 1e4
    data = find_qq(log_of(poisoned))
    assert data is not None
    ratio = np.log(np.array(data["empirical"]) / np.array(data["gamma"]))
    assert np.abs(ratio[20:80]).max() < 0.25
    assert ratio[-1] > 5


def test_the_step_of_a_composed_method_is_found_and_others_draw_nothing(tmp_path: Path, clean: np.ndarray) -> None:
    assert find_qq({"steps": [{"method": "probe"}, {"method": "fine-purifying", **log_of(clean)}]}) is not None
    assert write_qq(tmp_path, {"steps": [{"method": "restore"}]}) is None
    assert write_qq(tmp_path, {"qq": {"moved": 3, "why_none": "too few dimensions moved"}}) is None
    assert list(tmp_path.iterdir()) == []
