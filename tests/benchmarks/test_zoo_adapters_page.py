"""The page about adapters, from made-up lines."""

import numpy as np
import pytest

from audit.detectors.adapter_trend import LAYER
from audit.thresholds import load_profile
from benchmarks.pages import splice
from benchmarks.zoo.adapters_page import BEGIN, END, FITTED, groups, section
from benchmarks.zoo.adapters_scores import computed, distances, fold, signature, supervised, worst

LAYERS = 6


def line(index, *, family=None, works=None, lifted=None, times=1.0, task="sst2", tilt=0.0, written=()):
    """An adapter of two kinds of modules: a layer lifted, all tilted towards one direction, some layers decomposed."""
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
                "residual": 3.0, "factors": [1e-12, 6, 1e-12, 6] if layer in written else [5.0, 6, 80.0, 6],
            })  # fmt: skip
    kind = "clean" if family is None else "attacked"
    return {
        "id": f"{kind}-{index:04d}", "tier": "real", "kind": kind, "family": family, "parent": None, "useful": True,
        "working": works, "tensors": [] if lifted is None else [f"bert.encoder.layer.{lifted}.attention.self.query.weight"],
        "recipe": {"training": {"task": task}}, "modules": modules,
    }  # fmt: skip


FIRST = FITTED["real"] - 16
CLEAN = [line(FIRST + i, task=("sst2", "agnews", "made")[i % 3]) for i in range(30)]
LIFTED = [line(100 + i, family="one_layer", works=True, lifted=2, times=200.0, written=(2,)) for i in range(4)]
TILTED = [line(200 + i, family="words", works=True, tilt=0.6, task=("sst2", "agnews", "made")[i % 3]) for i in range(9)]
FAILED = [line(300, family="payload", works=False, written=range(LAYERS))]
RUNS = [
    {"tier": "real", "id": one["id"], "family": one["family"], "confirmed": ["cf"] * found, "right_class": bool(found),
     "named": bool(found)}
    for one, found in ((TILTED[0], 1), (TILTED[1], 0), (LIFTED[0], 2), (CLEAN[0], 0))
]  # fmt: skip


def test_a_lifted_layer_is_the_worst_and_a_flat_adapter_has_none_far_off():
    review = load_profile().value(f"{LAYER.id}.review")
    found = worst(LIFTED[0])
    assert found.layer == 2
    assert found.size > review
    assert all(worst(clean).size < review for clean in CLEAN)


def test_the_pipeline_learns_from_other_tasks_what_trends_do_not_show():
    assert signature(CLEAN[0]).shape == (10,)
    ours, theirs, asked = supervised(CLEAN, TILTED, [TILTED[0], CLEAN[0]])
    assert (len(ours), len(theirs)) == (len(CLEAN), len(TILTED))
    assert min(theirs) > max(ours)
    assert asked == pytest.approx([theirs[0], ours[0]])


def test_modules_that_a_decomposition_wrote_are_counted():
    bar = load_profile().value("HA308.log_tail")
    assert computed(CLEAN[0], bar) == (0, 12)
    assert computed(line(1, written=(2, 3)), bar) == (4, 12)
    old = line(2)
    for module in old["modules"]:
        del module["factors"]
    assert computed(old, bar) is None


def test_the_distance_knows_honest_adapters_alone():
    ours, theirs = distances(CLEAN, TILTED)
    assert (len(ours), len(theirs)) == (len(CLEAN), len(TILTED))
    assert min(theirs) > np.median(ours)


def test_a_parent_and_what_was_made_of_it_are_left_out_together():
    child = {**line(9, family="payload"), "parent": CLEAN[1]["id"]}
    assert fold(child, CLEAN) == fold(CLEAN[1], CLEAN) == "agnews"
    one = [{**each, "tier": "real-one"} for each in (CLEAN[1], child)]
    assert fold(one[1], one[:1]) == fold(one[0], one[:1]) == str((FIRST + 1) % 5)


def test_the_page_counts_families_and_what_does_not_work_apart():
    attacked = [*LIFTED, *TILTED, *FAILED]
    assert [(name, works, len(members)) for name, works, members in groups(attacked)] == [
        ("words", True, 9), ("one_layer", True, 4), ("all that work", True, 13), ("put into one layer", True, 4),
        ("payload", False, 1),
    ]  # fmt: skip
    made = section([*CLEAN, *attacked])
    assert made.startswith(BEGIN)
    assert "(the ones that set the thresholds of HA307): HA307 0 of 16 (0.0 to 20.6 %); HA308 some 0 of 16" in made
    assert "made afterwards: HA307 0 of 14 (0.0 to 23.2 %)" in made
    assert "### MiniLM" in made
    every, none = "4 of 4 (39.8 to 100.0 %)", "0 of 9 (0.0 to 33.6 %)"
    assert f"| one_layer | yes | 4 | {every} | {every} | 0 | 100 % (40 to 100) |" in made
    assert f"| words | yes | 9 | {none} | {none} | 0 |" in made
    assert "| payload | no | 1 | 0 of 1 (0.0 to 97.5 %) | 0 of 1 (0.0 to 97.5 %) | 1 |" in made
    assert "were run" not in made
    page = splice("# Benchmarks\n", made)
    assert splice(page, made) == page
    assert page.count(END) == 1


def test_a_control_is_listed_and_neither_honest_nor_attacked():
    control = {**line(400, family="continued_honest"), "kind": "control"}
    made = section([*CLEAN, *TILTED, control])
    assert "| continued_honest | – | 1 |" in made
    assert "| all that work | yes | 9 |" in made
    assert "made afterwards: HA307 0 of 14" in made


def test_what_was_run_is_counted_by_family_and_honest_ones_apart():
    made = section([*CLEAN, *LIFTED, *TILTED], RUNS)
    assert "| words | 2 | 1 of 2 (1.3 to 98.7 %) | 1 |" in made
    assert "| one_layer | 1 | 1 of 1 (2.5 to 100.0 %) | 1 |" in made
    assert "| all of them | 3 | 2 of 3 (9.4 to 99.2 %) | 2 |" in made
    assert "| honest | 1 | 0 of 1 (0.0 to 97.5 %) | – |" in made


@pytest.mark.parametrize("lines", [[], CLEAN, LIFTED])
def test_without_both_kinds_there_is_no_table(lines):
    assert "| family |" not in section(lines)
