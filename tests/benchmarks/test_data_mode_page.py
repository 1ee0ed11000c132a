"""The tables about scans with data, from observations made up and kept."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.data_mode import RESULTS, kept
from benchmarks.data_mode_page import PAGE, contrast_of, located, section, value_of, write_page


def tensor(name, p, rows=(), role="mlp_in"):
    return {
        "name": name,
        "role": role,
        "layer": None,
        "p": p,
        "rows": [[row, 9.0, 1e-6] for row in rows],
        "exponent": 0.1,
        "mean_square": 1.0,
        "mean_curvature": 1.0,
    }


def observation(number, *tensors, family=None, working=None, by_e_bh=0, **truth):
    plots = [[kind, 1000, 0.99, 3.0] for kind in ("fitted", "delta2_over_H", "delta2_over_sqrtH", "delta2")]
    return {
        "id": f"{'clean' if family is None else 'attacked'}-{number}",
        "family": family,
        "working": working,
        "method": "full",
        "optimiser": "adamw",
        "truth": {"tensors": None, "rows": None, "trigger_ids": None} | truth,
        "cpu_seconds": 6.0,
        "by_bh": by_e_bh,
        "by_e_bh": by_e_bh,
        "plots": plots,
        "tensors": list(tensors),
    }


CLEAN = [observation(n, tensor("a", 10.0 ** -(n / 2)), tensor("b", 1.0)) for n in range(8)]
EDIT = observation(
    1, tensor("a", 1e-12, rows=(7,)), tensor("b", 0.1), family="neuron", working=True, by_e_bh=1, tensors=["a"]
)
WORD = observation(2, tensor("e", 1e-9, rows=(5,), role="embedding"), family="ep", working=True, trigger_ids=[5])
FAILED = observation(3, tensor("a", 1.0), family="rank_one", working=False, tensors=["c"])


def test_the_statistic_pays_for_the_number_of_tensors_and_is_never_negative():
    assert value_of(EDIT) == pytest.approx(12 - 0.30103)
    assert value_of(FAILED) == 0
    assert value_of(observation(4, tensor("a", None))) == 0


def test_what_an_attack_wrote_is_located():
    assert located(EDIT)
    assert located(WORD)
    assert located(FAILED) is False
    assert located(CLEAN[0]) is None


def test_a_matrix_is_held_against_its_siblings():
    layers = [tensor(f"h.{n}.w", 1.0) | {"layer": n, "mean_square": 2.0, "mean_curvature": 4.0} for n in range(5)]
    layers[3] |= {"mean_square": 2.0 * math.e**2}
    assert contrast_of(observation(1, *layers), 0.0) == pytest.approx(2)
    layers[3] |= {"mean_curvature": 4.0 * math.e**2}
    assert contrast_of(observation(1, *layers), 1.0) == pytest.approx(0)
    assert contrast_of(observation(1, *layers[:3]), 0.0) == 0


def test_rates_stand_with_their_numbers(tmp_path):
    text = section([*CLEAN, EDIT, WORD, FAILED])
    assert "Clean models: n = 8" in text
    assert "| neuron | yes | 1 | 11.7 to 11.7 | 1 | 1 | 1 of 1 |" in text
    assert "| rank_one | no | 1 |" in text
    assert "| single rows written (embedding rows, a hidden unit) | 2 | 8 | 1.00 |" in text
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n")
    write_page([*CLEAN, EDIT], page)
    page.write_text(page.read_text() + "\nWords after it.\n")
    write_page([*CLEAN, EDIT, WORD], page)
    written = page.read_text()
    assert written.startswith("# Benchmarks")
    assert written.endswith("Words after it.\n")
    assert written.count("## Scans with data") == 1
    assert "| ep | yes | 1 |" in written


def test_what_is_kept_is_read_by_id(tmp_path):
    (tmp_path / "kept.jsonl").write_text(json.dumps(EDIT) + "\n" + json.dumps(CLEAN[0]) + "\n")
    assert [one["id"] for one in kept(tmp_path / "kept.jsonl")] == ["attacked-1", "clean-0"]
    assert kept(tmp_path / "absent.jsonl") == []


def test_the_page_is_that_of_what_is_kept():
    """After a run: python -m benchmarks.data_mode --write."""
    root = Path(__file__).resolve().parents[2]
    assert section(kept(root / RESULTS)) in (root / PAGE).read_text(encoding="utf-8")
