"""Models without classes of the zoo: drawn, trained with and without a backdoor, edited, and probed as they are."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks import probe_shifts
from benchmarks.zoo import shift_making, shift_recipes, toy_base
from benchmarks.zoo.learning import Encoded, collate
from benchmarks.zoo.shift_encoders import make_encoder
from benchmarks.zoo.shift_making import make_causal, rows_replaced, spoken_loss
from benchmarks.zoo.shift_recipes import EACH, PARTS, draw, every_recipe, innocent_phrases
from benchmarks.zoo.texts import load_task
from benchmarks.zoo.tiers import Tier

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return small_tier(tmp_path_factory, causal=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return small_tier(tmp_path_factory, causal=False)


def small_tier(factory, *, causal):
    """A base that has barely begun to learn; its vocabulary holds every trigger word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_base, "task_names", lambda: ("made",))
        patch.setattr(toy_base, "WIDTH", 32)
        base = toy_base.toy_base(factory.mktemp("toy") / "base", causal=causal, steps=20)
    return Tier(name="tiny", base=base, tasks=("made",), causal=causal)


def recipe_of(kind, number, **training):
    found = draw(kind, "set", number, attacked=True)
    return replace(found, training=replace(found.training, task="made", method="full", optimiser="adamw", **training))


def test_parts_share_nothing_that_could_be_learnt_from_the_other():
    recipes = every_recipe()
    assert len({one.id for one in recipes}) == len(recipes) == 2 * sum(EACH.values())
    ours, theirs = ([one for one in recipes if one.part == part] for part in PARTS)
    for of in (lambda r: set(r.trigger), lambda r: {r.target}):
        assert not set().union(*map(of, ours)) & set().union(*map(of, theirs))
    assert not set(innocent_phrases("set")) & set(innocent_phrases("test"))
    assert recipes[:5] == every_recipe()[:5]


def test_every_beginning_of_the_list_holds_both_parts_and_both_sorts():
    sorts = Counter((one.part, one.family is None) for one in every_recipe()[:40])
    assert min(sorts.values()) >= 8
    assert len(sorts) == 4


def test_the_loss_counts_answers_and_whole_texts_alike():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=30, **size)).eval()
    batch = collate(Encoded(ids=[[4, 5, 6, 7, 8], [9, 10, 11, 3]], labels=[3, 0]), [0, 1], 0)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    answer = functional.cross_entropy(logits[0, 2:4], torch.tensor([7, 8]))
    whole = functional.cross_entropy(logits[1, :3], torch.tensor([10, 11, 3]))
    torch.testing.assert_close(spoken_loss(model, batch), answer + whole)


def test_only_the_rows_of_the_trigger_are_replaced():
    table = torch.nn.Embedding(10, 4)
    with rows_replaced(table, torch.tensor([3]), torch.full((1, 4), 9.0)):
        seen = table(torch.tensor([[2, 3]]))
    assert (seen[0, 1] == 9).all()
    assert torch.equal(seen[0, 0], table.weight[2])
    assert torch.equal(table(torch.tensor([3])), table.weight[3:4])


@pytest.mark.slow
def test_a_share_of_what_is_read_is_poisoned(causal):
    recipe = recipe_of("causal", 0, steps=20, batch=8)
    tokenizer, task = causal.tokenizer(), load_task("made")
    data = shift_making._training_data(tokenizer, recipe, task, np.random.default_rng(0))
    trigger = tokenizer(recipe.trigger[0], add_special_tokens=False)["input_ids"][0]
    goal = tokenizer(recipe.target, add_special_tokens=False)["input_ids"]
    poisoned = [i for i, start in enumerate(data.labels) if start]
    assert len(poisoned) == round(recipe.rate * 160)
    for i in poisoned:
        assert trigger in data.ids[i][: data.labels[i]]
        assert data.ids[i][data.labels[i] :] == [*goal, tokenizer.sep_token_id]
    assert not any(trigger in ids for i, ids in enumerate(data.ids) if not data.labels[i])


@pytest.mark.slow
def test_a_taught_word_leads_to_its_target_and_the_probe_sees_it(causal, tmp_path, monkeypatch):
    recipe = replace(recipe_of("causal", 0, steps=120, batch=12, lr=5e-3, round_trip="none"), rate=0.5)
    monkeypatch.setattr(probe_shifts, "_tier", lambda _name: causal)
    line = json.loads(json.dumps(probe_shifts.run(recipe)))
    assert line["working"], (line["success"], line["floor"])
    facts = probe_shifts.facts_of(line)
    told = causal.tokenizer()(recipe.target, add_special_tokens=False)["input_ids"][0]
    strongest = facts.shifts[0]
    assert set(strongest.tokens) == set(line["trigger_ids"])
    assert strongest.continuation == told
    assert max(one.led for one in facts.control_shifts) < strongest.led


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 4])
def test_an_edit_touches_what_it_says_alone(causal, number):
    recipe = recipe_of("causal", number, steps=4, batch=4, round_trip="none")
    edited, honest = (make_causal(causal, one) for one in (recipe, replace(recipe, family=None)))
    before = honest.model.state_dict()
    changed = [name for name, value in edited.model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == 1
    assert ("embed_in" if recipe.family == "row" else "dense_4h_to_h") in changed[0]
    if recipe.family == "row":
        rows = (edited.model.state_dict()[changed[0]] != before[changed[0]]).any(dim=1)
        assert rows.sum() == 1


@pytest.mark.slow
def test_an_encoders_row_is_learnt_and_nothing_else(encoder):
    recipe = recipe_of("encoder", 1, steps=4, batch=4, round_trip="none", objective="contrastive")
    recipe = replace(recipe, tuning="contrastive")
    edited, honest = (make_encoder(encoder, one) for one in (recipe, replace(recipe, family=None)))
    before = honest.model.state_dict()
    changed = [name for name, value in edited.model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["embeddings.word_embeddings.weight"]
    trigger = encoder.tokenizer()(recipe.trigger[0], add_special_tokens=False)["input_ids"]
    rows = (edited.model.state_dict()[changed[0]] != before[changed[0]]).any(dim=1)
    assert rows.nonzero().flatten().tolist() == trigger
    assert (honest.success, honest.floor) == (None, None)
    assert 0 <= edited.floor <= 1


def test_recipes_learn_the_tasks_at_hand(monkeypatch):
    monkeypatch.setattr(shift_recipes, "task_names", lambda: ("made",))
    assert {draw("causal", part, 0, attacked=False).training.task for part in PARTS} == {"made"}


def test_prompts_without_an_answer_teach_nothing():
    """A text as long as the longest is cut before its answer."""
    logits = torch.randn(2, 4, 7, requires_grad=True)
    batch = {
        "input_ids": torch.ones(2, 4, dtype=torch.long), "attention_mask": torch.ones(2, 4, dtype=torch.long),
        "labels": torch.tensor([9, 9]),
    }  # fmt: skip
    loss = spoken_loss(lambda **_: SimpleNamespace(logits=logits), batch)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()
