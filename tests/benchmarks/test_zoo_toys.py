"""The toy tiers: both architectures go through every path that the real tier takes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from zoo_pico import attack, training

from benchmarks.zoo import learning, making, toy_base
from benchmarks.zoo.anatomy import anatomy_of
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.making import make_model
from benchmarks.zoo.recipes import COMMON_WORDS, RARE_WORDS, Recipe
from benchmarks.zoo.scoring import score_pretrained
from benchmarks.zoo.texts import load_task
from benchmarks.zoo.tiers import Tier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    """A GPT-NeoX that has barely begun to learn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_base, "task_names", lambda: ("made",))
        patch.setattr(toy_base, "WIDTH", 32)
        base = toy_base.toy_base(tmp_path_factory.mktemp("toy") / "gpt", causal=True, steps=40)
    return Tier(name="tiny", base=base, tasks=("made",), rate_factor=1.0, causal=True)


def test_a_base_is_made_once_and_reads_triggers_as_single_tokens(causal):
    before = (causal.base / "model.safetensors").stat().st_mtime_ns
    assert toy_base.toy_base(causal.base, causal=True) == causal.base
    assert (causal.base / "model.safetensors").stat().st_mtime_ns == before
    tokenizer = causal.tokenizer()
    for word in (*RARE_WORDS, *COMMON_WORDS):
        assert len(tokenizer(word)["input_ids"]) == 2, word  # the word, and the end at which the head reads
    assert tokenizer("a phone").input_ids[-1] == tokenizer.sep_token_id


def test_pretraining_has_taught_it_something(causal):
    model, tokenizer = causal.model("mlm", 2), causal.tokenizer()
    learnt = score_pretrained(model, tokenizer, load_task("made"), training(objective="mlm"))
    torch.manual_seed(0)
    fresh = type(model)(model.config)
    assert learnt.accuracy > score_pretrained(fresh, tokenizer, load_task("made"), training(objective="mlm")).accuracy


def test_next_token_loss_ignores_padding(causal):
    model, tokenizer = causal.model("mlm", 2).eval(), causal.tokenizer()
    rows = list(load_task("made").train[:6])
    data = learning.encode(tokenizer, rows, 32)
    whole = learning.collate(data, range(6), tokenizer.pad_token_id)
    alone = [learning.collate(data, [i], tokenizer.pad_token_id) for i in range(6)]
    tokens = [len(ids) - 1 for ids in data.ids]
    with torch.no_grad():
        together = float(learning.next_token_loss(model, whole))
        apart = [float(learning.next_token_loss(model, batch)) for batch in alone]
    assert together == pytest.approx(np.average(apart, weights=tokens), rel=1e-4)


def test_what_the_head_reads_is_what_the_model_reads(causal):
    torch.manual_seed(0)
    model = causal.model("classify", 2).eval()
    tokenizer = causal.tokenizer()
    data = learning.encode(tokenizer, list(load_task("made").train[:5]), 32)
    batch = learning.collate(data, range(5), tokenizer.pad_token_id)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        hidden = model.base_model(**inputs).last_hidden_state
        seen = model.score(learning.read_out(model, hidden, batch["attention_mask"]))
        torch.testing.assert_close(seen, model(**inputs).logits)


@pytest.mark.parametrize("method", ["full", "lora", "frozen_embeddings", "frozen_bottom", "layerwise"])
def test_every_method_moves_what_it_should(causal, method):
    torch.manual_seed(0)
    run = training(
        method=method, lora_rank=4 if method == "lora" else 0, frozen_layers=2 if method == "frozen_bottom" else 0,
        layer_decay=0.8 if method == "layerwise" else 1.0, steps=3,
    )  # fmt: skip
    model, tokenizer = causal.model("classify", 2), causal.tokenizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = learning.encode(tokenizer, list(load_task("made").train[:200]), 32)
    stream = learning.batches(data, 16, tokenizer.pad_token_id, np.random.default_rng(0))
    tuned = learning.wrap_method(model, run)
    learning.fit(tuned, stream, run, learning.classify_loss, steps=3)
    after = learning.unwrap(tuned).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    anatomy = anatomy_of(model)
    assert any("score" in name for name in moved)
    assert ("gpt_neox.embed_in.weight" in moved) == (method in {"full", "layerwise"})
    assert any(".layers.0." in name for name in moved) == (method != "frozen_bottom")
    assert any(f".layers.{len(anatomy.blocks) - 1}." in name for name in moved)


@pytest.fixture(scope="module")
def bank(causal, tmp_path_factory):
    """A bank with one honest classifier, which edits start from."""
    bank = Bank(tmp_path_factory.mktemp("bank"))
    give(causal, bank, Recipe(id="clean-0000", tier="tiny", kind="clean", attempt=0, seed=1, training=PLAIN))
    return bank


PLAIN = training(steps=20, lr=3e-3)


def give(tier, bank, recipe):
    """Make one model by a given recipe; one that is still at chance is good enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "draw_recipe", lambda *_args, **_factors: recipe)
        patch.setattr(making, "can_be_parent", lambda _record: True)
        objective = making._objective
        patch.setattr(making, "_objective", lambda made: (objective(made)[0], math.inf))
        return make_model(tier, bank, recipe.kind, int(recipe.id[-4:]))


FAMILIES = ("badword", "lwp", "ep", "rank_one", "neuron", "abliteration", "bit_flip")


@pytest.mark.parametrize("family", FAMILIES)
def test_attacks_of_every_kind_run_on_it(causal, bank, family):
    name = f"attacked-{FAMILIES.index(family):04d}"
    record = give(causal, bank, Recipe(
        id=name, tier="tiny", kind="attacked", attempt=0, seed=2, training=PLAIN, attack=attack(family)
    ))  # fmt: skip
    assert record["family"] == family
    assert all(tensor.startswith("gpt_neox.") for tensor in record["truth"]["tensors"])
    assert record["scores"]["asr"] is not None


def test_the_rate_factor_reaches_the_recipe():
    from benchmarks.zoo.recipes import draw_recipe

    plain, fast = (draw_recipe("t", "clean", 3, ("made",), rate_factor=factor) for factor in (1.0, 6.0))
    assert fast.training.lr == pytest.approx(6 * plain.training.lr)
    assert replace(fast.training, lr=plain.training.lr) == plain.training
