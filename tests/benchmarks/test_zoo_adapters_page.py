"""The page about adapters, from made-up lines."""

import numpy as np
import pytest

from audit.detectors.adapter_trend import LAYER
from audit.thresholds import load_profile
from benchmarks.pages import splice
from benchmarks.zoo.adapters_page import BEGIN, END, groups, section, signature, supervised, worst

LAYERS = 6


def line(index, *, family=None, works=None, lifted=None, times=1.0, task="sst2", tilt=0.0):
    """An adapter of two kinds of modules; one layer lifted, all of them tilted towards one direction."""
    rng = np.random.default_rng(index)
    modules = []
    for layer in range(LAYERS):
        for role in ("query", "value"):
            values = np.sort(rng.uniform(0.9, 1.1, 4))[::-1] * (times if layer == lifted else 1.0)
            values[0] *= np.exp(tilt)
            shares = values**2 / (values**2).sum()
            modules.append({
                "name": f"encoder.layer.{layer}.attention.self.{role}.weight", "role": role, "layer": layer,
                "base_l2": 10.0, "energy": float((values**2).sum()), "values": values.tolist(), "rank": 4,
                "entropy": float(-(shares * np.log(shares)).sum()), "participation": float((shares**2).sum()),
                "residual": 3.0,
            })  # fmt: skip
    kind = "clean" if family is None else "attacked"
    return {
        "id": f"{kind}-{index:04d}", "tier": "real", "kind": kind, "family": family, "parent": None, "useful": True,
        "working": works, "tensors": [] if lifted is None else [f"bert.encoder.layer.{lifted}.attention.self.query.weight"],
        "recipe": {"training": {"task": task}}, "modules": modules,
    }  # fmt: skip


CLEAN = [line(i, task=("sst2", "agnews", "made")[i % 3]) for i in range(30)]
LIFTED = [line(100 + i, family="one_layer", works=True, lifted=2, times=20.0) for i in range(4)]
TILTED = [line(200 + i, family="words", works=True, tilt=0.6, task=("sst2", "agnews", "made")[i % 3]) for i in range(9)]
FAILED = [line(300, family="payload", works=False)]


def test_a_lifted_layer_is_the_worst_and_a_flat_adapter_has_none_far_off():
    review = load_profile().value(f"{LAYER.id}.review")
    found = worst(LIFTED[0])
    assert found.layer == 2
    assert found.size > review
    assert all(worst(clean).size < review for clean in CLEAN)


def test_the_pipeline_learns_from_other_tasks_what_trends_do_not_show():
    assert signature(CLEAN[0]).shape == (10,)
    ours, theirs = supervised(CLEAN, TILTED)
    assert (len(ours), len(theirs)) == (len(CLEAN), len(TILTED))
    assert min(theirs) > max(ours)


def test_the_page_counts_families_and_what_does_not_work_apart():
    attacked = [*LIFTED, *TILTED, *FAILED]
    assert [(name, works, len(members)) for name, works, members in groups(attacked)] == [
        ("words", True, 9), ("one_layer", True, 4), ("all that work", True, 13), ("put into one layer", True, 4),
        ("payload", False, 1),
    ]  # fmt: skip
    made = section([*CLEAN, *attacked])
    assert made.startswith(BEGIN)
    assert "the ones that set its thresholds: 0 of 16 (0.0 to 20.6 %)." in made
    assert "made afterwards: 0 of 14 (0.0 to 23.2 %)." in made
    assert "### MiniLM" in made
    assert "| one_layer | yes | 4 | 4 of 4 (39.8 to 100.0 %) | 4 of 4 | 100 % (40 to 100) |" in made
    assert "| words | yes | 9 | 0 of 9" in made
    page = splice("# Benchmarks\n", made)
    assert splice(page, made) == page
    assert page.count(END) == 1


@pytest.mark.parametrize("lines", [[], CLEAN, LIFTED])
def test_without_both_kinds_there_is_no_table(lines):
    assert "| family |" not in section(lines)
