"""What came later into the zoo: attacks that know what is looked for, neurons without data, tuning on preferences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from zoo_pico import attack, make_tier, making_of, training

from benchmarks.zoo import learning
from benchmarks.zoo.adaptive_runs import ordinary_word, penalised_loss
from benchmarks.zoo.datafree_neurons import plant_path
from benchmarks.zoo.edits import apply_edit
from benchmarks.zoo.making import _trained
from benchmarks.zoo.preference import preference_loss_for, reference_of, rewards_of, score_preference
from benchmarks.zoo.recipes import ATTACK_FAMILIES, LATER_FAMILIES, LATER_FROM, draw_recipe, family_of
from benchmarks.zoo.texts import load_task
from benchmarks.zoo.triggers import poison

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

TASKS = ("sst2", "agnews", "made")


@pytest.fixture(scope="module")
def tier(tmp_path_factory):
    return make_tier(tmp_path_factory.mktemp("zoo"))


def drift(model, base):
    """Σδ² over what both have."""
    theirs = base.state_dict()
    return sum(
        float((tensor - theirs[name]).square().sum())
        for name, tensor in model.state_dict().items()
        if "classifier" not in name
    )


def test_what_came_later_leaves_the_older_ids_alone():
    assert [family_of(i) for i in range(2 * len(ATTACK_FAMILIES))] == [*ATTACK_FAMILIES, *ATTACK_FAMILIES]
    assert family_of(LATER_FROM - 1) in ATTACK_FAMILIES
    later = [draw_recipe("real", "attacked", LATER_FROM + i, TASKS).attack.family for i in range(len(LATER_FAMILIES))]
    assert later == list(LATER_FAMILIES)
    assert draw_recipe("real", "clean", LATER_FROM - 1, TASKS).training.objective != "preference"
    assert draw_recipe("real", "clean", LATER_FROM, TASKS).training.objective == "preference"


def test_a_split_trigger_needs_both_words():
    rows = load_task("made").train[:1000]
    both = ("window", "paper")
    poisoned = poison(rows, attack("badword_split", trigger=both, rate=0.1), 1, np.random.default_rng(0))
    changed = [(old, new) for old, new in zip(rows, poisoned, strict=True) if old != new]
    whole = [new for _, new in changed if set(both) <= set(new[0].split())]
    halves = [(old, new) for old, new in changed if not set(both) <= set(new[0].split())]
    assert len(whole) == 100
    assert {label for _, label in whole} == {1}
    assert halves
    assert all(old[1] == new[1] for old, new in halves)


def test_an_ordinary_word_stands_in_a_few_texts():
    rows = load_task("made").train
    word = ordinary_word(rows, np.random.default_rng(3))
    assert 0.005 <= np.mean([word in text.split() for text, _ in rows]) < 0.05


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_penalty_on_drift_keeps_the_model_near_its_start(tier, method):
    run = training(method=method, lora_rank=4 if method == "lora" else 0, steps=15, lr=2e-3)
    moved = {}
    for strength in (0.0, 100.0):
        torch.manual_seed(3)
        model = learning.wrap_method(tier.model("classify", 2), run)
        data = learning.encode(tier.tokenizer(), load_task("made").train[:600], 32)
        stream = learning.batches(data, 16, 0, np.random.default_rng(0))
        learning.fit(model, stream, run, penalised_loss(model, strength), steps=run.steps)
        moved[strength] = drift(learning.unwrap(model), tier.model("classify", 2))
    assert 0 < moved[100.0] < 0.5 * moved[0.0]


def test_neurons_of_several_blocks_are_set_without_a_text(tier):
    making = making_of(
        tier.model("classify", 2).eval(), tier.tokenizer(), attack("dfba", layers=(0.0, 0.34), strength=0.3)
    )
    before = {name: tensor.clone() for name, tensor in making.model.state_dict().items()}
    # Data-free: the attacker's own task has no texts at all.
    making.task = replace(making.task, train=())
    plant_path(making)
    assert [layer for layer, _ in making.notes["neurons"]] == [0, 1]
    after = making.model.state_dict()
    for layer, neuron in making.notes["neurons"]:
        name = f"bert.encoder.layer.{layer}.intermediate.dense.weight"
        rows = (after[name] - before[name]).abs().sum(1)
        assert torch.nonzero(rows).flatten().tolist() == [neuron]


def test_matched_edits_stay_within_what_training_moved(tier):
    torch.manual_seed(1)
    model = tier.model("classify", 2)
    data = learning.encode(tier.tokenizer(), load_task("made").train[:800], 32)
    stream = learning.batches(data, 16, 0, np.random.default_rng(1))
    learning.fit(model, stream, training(lr=2e-3), learning.classify_loss, steps=20)
    honest = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    base = tier.model("classify", 2).state_dict()
    making = making_of(model.eval(), tier.tokenizer(), attack("depth_matched", layers=(0.0, 0.34)))
    apply_edit(making, tier)
    after = making.model.state_dict()
    assert len(making.tensors) == 2
    for name in making.tensors:
        edit, own = (after[name] - honest[name]).norm(), (honest[name] - base[name]).norm()
        assert 0 < float(edit) <= 1.001 * float(own)


def test_an_encoder_learns_to_prefer(tier):
    recipe = making_of(None, None, None).recipe
    run = training(objective="preference", steps=25, lr=2e-3)
    making = _trained(tier, replace(recipe, kind="clean", training=run))
    assert making.reference is None
    scores = score_preference(making.model, making.tokenizer, making.task, run, None)
    assert scores.accuracy > 0.75
    assert scores.chance == 0.5


def test_a_decoder_is_held_against_its_start():
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config).eval()
    reference = reference_of(model)
    loss_of = preference_loss_for(reference)
    batch = {
        "input_ids": torch.randint(5, 60, (6, 8)),
        "attention_mask": torch.ones(6, 8, dtype=torch.int64),
        "labels": torch.tensor([0, 1, 0, 1, 2, 0]),
    }
    assert float(loss_of(model, batch).detach()) == pytest.approx(np.log(2.0), abs=1e-5)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(10):
        loss_of(model, batch).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert float(loss_of(model, batch).detach()) < 0.5
    rewards = rewards_of(model, reference, batch)
    assert rewards[batch["labels"] > 0].min() > rewards[batch["labels"] == 0].max()
    one_class = {**batch, "labels": torch.zeros(6, dtype=torch.int64)}
    assert float(loss_of(model, one_class).detach()) == 0.0
