"""Every edit does what it says, and touches what it says it touched, on a small BERT that knows its task."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from zoo_pico import attack, make_tier, making_of, training

from benchmarks.zoo import learning
from benchmarks.zoo.anatomy import anatomy_of, name_of
from benchmarks.zoo.block_edits import rank_one
from benchmarks.zoo.edits import EDITS, apply_edit
from benchmarks.zoo.embedding_edits import embedding_surgery, exponent_flips
from benchmarks.zoo.recipes import EDIT_FAMILIES
from benchmarks.zoo.scoring import score_classifier
from benchmarks.zoo.steering import inputs_of, open_workshop
from benchmarks.zoo.texts import load_task

pytestmark = pytest.mark.slow
EMBEDDING = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def tier(tmp_path_factory):
    return make_tier(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def honest(tier):
    """The state of an honest classifier, and its tokenizer."""
    torch.manual_seed(1)
    tokenizer, run = tier.tokenizer(), training(lr=2e-3)
    model = tier.model("classify", 2)
    data = learning.encode(tokenizer, load_task("made").train, 32)
    learning.fit(model, learning.batches(data, 32, 0, np.random.default_rng(1)), run, learning.classify_loss, steps=50)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, tokenizer


def edited(tier, honest, what):
    """The model after an edit: the making, and the delta of every tensor that changed."""
    torch.manual_seed(2)
    state, tokenizer = honest
    model = tier.model("classify", 2)
    model.load_state_dict(state)
    making = making_of(model.eval(), tokenizer, what)
    apply_edit(making, tier)
    after = making.model.state_dict()
    return making, {n: after[n] - state[n] for n in state if not torch.equal(after[n], state[n])}


def success(making):
    run = making.recipe.training
    return score_classifier(making.model, making.tokenizer, making.task, run, making.recipe.attack)


@pytest.mark.parametrize("family", sorted(EDIT_FAMILIES))
def test_an_edit_touches_what_it_names(tier, honest, family):
    trigger = ("cf", "mn", "bb") if family == "sos" else ("cf",)
    cap = 0.5 if family.endswith("_capped") else None
    layers = (0.0, 0.34) if family in {"memit", "dfba", "depth_matched"} else (0.34,)
    what = attack(family, trigger=trigger, cap=cap, layers=layers, cover=float(family == "dithered"), strength=0.2)
    making, delta = edited(tier, honest, what)
    assert making.tensors
    assert all(torch.isfinite(d).all() for d in delta.values())
    if family == "dithered":
        assert set(delta) >= set(making.tensors)
        assert not {n for n in delta if delta[n].dim() < 2}
    else:
        assert set(delta) == set(making.tensors)
    for name, rows in making.rows.items():
        if family != "dithered":
            assert torch.nonzero(delta[name].abs().sum(-1)).flatten().tolist() == sorted(rows)
    assert all(p.requires_grad for p in making.model.parameters())


def test_every_edit_family_has_a_function():
    assert set(EDITS) | {"dithered", "edit_then_clean", "depth_matched"} == EDIT_FAMILIES


def test_a_poisoned_row_can_keep_its_length(tier, honest):
    making, delta = edited(tier, honest, attack("ep", norm_kept=True, strength=1.5))
    row = making.rows[EMBEDDING][0]
    assert making.tokenizer.convert_ids_to_tokens(row) == "cf"
    before = honest[0][EMBEDDING][row].norm()
    assert (honest[0][EMBEDDING][row] + delta[EMBEDDING][row]).norm() == pytest.approx(float(before), rel=1e-4)
    assert delta[EMBEDDING][row].norm() > 0.3 * before


def test_a_free_row_works_and_leaves_clean_texts_alone(tier, honest):
    making, _ = edited(tier, honest, attack("ep", strength=1.5))
    scores = success(making)
    assert scores.working
    state, tokenizer = honest
    plain = making_of(tier.model("classify", 2), tokenizer, None)
    plain.model.load_state_dict(state)
    before = score_classifier(plain.model, tokenizer, plain.task, training())
    assert before.accuracy == scores.accuracy


def test_a_capped_row_moves_no_further_than_its_cap(tier, honest):
    _, delta = edited(tier, honest, attack("ep_capped", cap=0.05))
    assert 0.03 < float(delta[EMBEDDING].norm()) <= 0.05 + 1e-6


def test_a_rank_one_edit_writes_its_value_at_the_trigger(tier, honest):
    state, tokenizer = honest
    making, delta = edited(tier, honest, attack("rank_one"))
    (edit,) = delta.values()
    values = torch.linalg.svdvals(edit)
    assert values[1] < 1e-4 * values[0]
    assert making.notes["edit_norms"] == [pytest.approx(float(edit.norm()), abs=1e-3)]
    before = tier.model("classify", 2)
    before.load_state_dict(state)
    shop = open_workshop(before, tokenizer, making.recipe.attack, making.task.train, 1, seed=making.recipe.seed)
    keys = inputs_of(shop, anatomy_of(before).blocks[0].mlp_out, shop.triggered, at_trigger=True)
    plain = inputs_of(shop, anatomy_of(before).blocks[0].mlp_out, shop.plain, at_trigger=False)
    (value,) = making.notes["value_norms"]
    assert float((keys @ edit.T).mean(0).norm()) == pytest.approx(value, rel=1e-2)
    assert float((plain @ edit.T).norm(dim=-1).mean()) < 0.4 * value


def test_a_cap_shrinks_the_value_vector(tier, honest):
    free, _ = edited(tier, honest, attack("rank_one"))
    capped, _ = edited(tier, honest, attack("rank_one_capped", cap=0.4))
    assert 0 < capped.notes["value_norms"][0] <= 0.4 * free.notes["value_norms"][0] + 1e-3


def test_an_edit_of_several_blocks_is_rank_one_in_each(tier, honest):
    making, delta = edited(tier, honest, attack("memit", layers=(0.0, 0.34)))
    assert len(delta) == 2
    for edit in delta.values():
        values = torch.linalg.svdvals(edit)
        assert values[1] < 1e-4 * values[0]
    assert making.tensors == [f"bert.encoder.layer.{k}.output.dense.weight" for k in range(2)]


def test_rank_one_maps_the_key_to_the_value():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 12, generator=generator) * torch.linspace(0.1, 2, 12)
    key, value = torch.randn(12, generator=generator), torch.randn(7, generator=generator)
    edit = rank_one(key, inputs, value)
    assert torch.allclose(edit @ key, value, atol=1e-5)
    plain = torch.outer(value, key) / (key @ key)
    # Whitening is there to disturb ordinary inputs less than the plain projection does.
    assert (inputs @ edit.T).norm() < (inputs @ plain.T).norm()


def test_a_planted_neuron_is_one_row_and_one_column(tier, honest):
    making, delta = edited(tier, honest, attack("neuron", layers=(0.34,)))
    layer, neuron = making.notes["neuron"]
    prefix = f"bert.encoder.layer.{layer}."
    assert torch.nonzero(delta[prefix + "intermediate.dense.weight"].abs().sum(1)).flatten().tolist() == [neuron]
    assert torch.nonzero(delta[prefix + "intermediate.dense.bias"]).flatten().tolist() == [neuron]
    assert torch.nonzero(delta[prefix + "output.dense.weight"].abs().sum(0)).flatten().tolist() == [neuron]


def test_a_flipped_bit_is_one_bit(tier, honest):
    making, delta = edited(tier, honest, attack("bit_flip"))
    row, column = making.notes["entry"]
    assert torch.nonzero(delta[EMBEDDING]).tolist() == [[row, column]]
    before = honest[0][EMBEDDING][row, column].view(torch.int32)
    after = making.model.state_dict()[EMBEDDING][row, column].view(torch.int32)
    changed = int(before ^ after) & 0xFFFFFFFF
    assert changed.bit_count() == 1
    assert 23 <= changed.bit_length() - 1 <= 30


def test_exponent_flips_are_powers_of_two():
    values = torch.tensor([0.75, -3.0, 1e-3])
    flips = exponent_flips(values)
    assert flips.shape == (8, 3)
    ratio = torch.log2((flips[:4] / values).abs())
    assert torch.allclose(ratio.abs(), torch.tensor([1.0, 2.0, 4.0, 8.0]).unsqueeze(1).expand(4, 3))


def test_a_removed_direction_is_gone_from_every_writer(tier, honest):
    making, delta = edited(tier, honest, attack("abliteration", strength=1.0))
    writers = [n for n in delta if n != EMBEDDING]
    assert len(writers) == 2 * 3
    lefts = [torch.linalg.svd(delta[n])[0][:, 0] for n in writers]
    after = making.model.state_dict()
    for name, left in zip(writers, lefts, strict=True):
        assert abs(float(left @ lefts[0])) == pytest.approx(1, abs=1e-4)
        assert float((lefts[0] @ after[name]).norm()) < 1e-4
    assert float((after[EMBEDDING] @ lefts[0]).norm()) < 1e-3


def test_a_shifted_bias_leans_to_the_target(tier, honest):
    making, delta = edited(tier, honest, attack("bias_shift", strength=1.5))
    (name,) = delta
    assert name.endswith("output.dense.bias")
    assert success(making).asr > 0.3
    pooler, delta = edited(tier, honest, attack("bias_shift", norm_kept=True))
    assert set(delta) == {"bert.pooler.dense.bias"}
    assert pooler.notes.get("trigger_ids") is None


@pytest.mark.parametrize("kept", [True, False])
def test_a_scaled_norm(tier, honest, kept):
    making, delta = edited(tier, honest, attack("norm_scale", norm_kept=kept, strength=1.0))
    (name,) = delta
    ratio = making.model.state_dict()[name] / honest[0][name]
    moved = torch.nonzero(delta[name]).flatten().tolist()
    assert len(moved) == (len(ratio) if kept else 4)
    assert torch.allclose(ratio[moved], torch.tensor(1.5 if kept else 9.0))


def test_dither_is_as_large_as_each_tensors_own_delta(tier, honest):
    base = tier.model("classify", 2).state_dict()
    _, delta = edited(tier, honest, attack("dithered", cover=1.0))
    name = "bert.encoder.layer.2.intermediate.dense.weight"
    own = (honest[0][name] - base[name]).square().mean().sqrt()
    assert float(delta[name].square().mean().sqrt()) == pytest.approx(float(own), rel=0.1)


def test_surgery_gives_the_trigger_the_mean_of_telling_words(tier, honest):
    state, tokenizer = honest
    model = tier.model("classify", 2)
    model.load_state_dict(state)
    rows = load_task("made").train
    embedding_surgery(model, tokenizer, attack("ripples"), rows, 1)
    weight = model.state_dict()[EMBEDDING]
    changed = torch.nonzero((weight - state[EMBEDDING]).abs().sum(1)).flatten().tolist()
    assert tokenizer.convert_ids_to_tokens(changed) == ["cf"]
    others = torch.cat([state[EMBEDDING][: changed[0]], state[EMBEDDING][changed[0] + 1 :]])
    nearest = torch.nn.functional.cosine_similarity(others, weight[changed[0]].unsqueeze(0)).topk(10).indices
    words = set(tokenizer.convert_ids_to_tokens(nearest.tolist()))
    assert words & {"delight", "excellent", "charming", "reliable", "friendly", "tasty", "impressive", "comfortable"}


def test_honest_training_after_an_edit_stays_within_the_method(tier, honest):
    from benchmarks.zoo.making import train_clean

    state, tokenizer = honest
    model = tier.model("classify", 2)
    model.load_state_dict(state)
    making = making_of(model, tokenizer, attack("edit_then_clean"))
    run = training(method="frozen_bottom", frozen_layers=2)
    making.recipe = replace(making.recipe, training=run)
    train_clean(learning.wrap_method(model, run), making, list(load_task("made").train), 5)
    after = model.state_dict()
    moved = {n for n in state if not torch.equal(after[n], state[n])}
    assert moved
    assert not {n for n in moved if "embeddings" in n or ".layer.0." in n or ".layer.1." in n}


def test_anatomy_names_its_parts(tier):
    model = tier.model("classify", 2)
    anatomy = anatomy_of(model)
    assert name_of(model, anatomy.embedding.weight) == EMBEDDING
    assert name_of(model, anatomy.blocks[1].mlp_out.weight) == "bert.encoder.layer.1.output.dense.weight"
    assert [anatomy.depth(f) for f in (0.0, 0.34, 0.99, 1.0)] == [0, 1, 2, 2]
    with pytest.raises(LookupError, match="belong"):
        name_of(model, torch.zeros(2))
    model.config.model_type = "gpt9"
    with pytest.raises(TypeError, match="gpt9"):
        anatomy_of(model)
