"""Pairing of names by prefix and spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stopwatch import at_most

from scanner.renaming import modern_spelling, pair_names


def always(_one, _other):
    return True


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.embeddings.LayerNorm.beta", "bert.embeddings.LayerNorm.bias"),
        ("layer_norm.gamma", "layer_norm.weight"),
        ("layers.0.scale.gamma", "layers.0.scale.gamma"),
        ("gamma", "gamma"),
        ("LayerNorm.weight", "LayerNorm.weight"),
    ],
)
def test_modern_spelling(old, new):
    assert modern_spelling(old) == new


def test_several_parts_with_their_own_prefixes():
    base = ["text.layers.0.w", "text.layers.1.w", "vision.blocks.0.w"]
    mine = ["text_tower.text.layers.0.w", "text_tower.text.layers.1.w", "vision_tower.vision.blocks.0.w"]
    assert pair_names(mine, base, always) == dict(zip(mine, base, strict=True))


def test_the_prefix_of_a_wrapper_is_taken_away():
    base = ["model.layers.0.w", "lm_head.weight"]
    mine = ["_orig_mod.model.layers.0.w", "_orig_mod.lm_head.weight"]
    assert pair_names(mine, base, always) == dict(zip(mine, base, strict=True))


def test_encoder_and_decoder_are_not_exchanged():
    assert pair_names(["encoder.block.0.w"], ["decoder.block.0.w"], always) == {}


def test_a_decoder_is_not_taken_for_the_encoder_when_both_are_there():
    base = ["encoder.block.0.w", "decoder.block.0.w"]
    mine = ["t5.encoder.block.0.w", "t5.decoder.block.0.w"]
    assert pair_names(mine, base, always) == dict(zip(mine, base, strict=True))


def test_equal_names_win_over_prefixes():
    assert pair_names(["a.w", "w"], ["w", "a.w"], always) == {"a.w": "a.w", "w": "w"}


def test_layer_numbers_are_not_prefixes():
    assert pair_names(["0.w"], ["w"], always) == {}


def test_many_prefixes_cost_little():
    mine = [f"p{i}.layers.0.weight{i}" for i in range(10_000)]
    base = [f"q{i}.layers.0.weight{i}" for i in range(10_000)]
    with at_most(5):
        pair_names(mine, base, always)


names = st.lists(
    st.lists(
        st.sampled_from(["a", "b", "encoder", "layers", "0", "1", "norm", "gamma", "weight", ""]),
        min_size=1,
        max_size=5,
    ).map(".".join),
    unique=True,
    max_size=30,
)


@given(names, names)
def test_pairs_are_one_to_one_and_equal_names_stay_together(mine, base):
    pairs = pair_names(mine, base, always)
    assert len(set(pairs.values())) == len(pairs)
    assert set(pairs) <= set(mine)
    assert set(pairs.values()) <= set(base)
    assert all(pairs[name] == name for name in set(mine) & set(base))


@given(names)
def test_a_common_prefix_changes_nothing(base):
    mine = [f"wrapper.{name}" for name in base if not name.startswith("wrapper.")]
    pairs = pair_names(mine, base, always)
    assert {f"wrapper.{name}": name for name in base if f"wrapper.{name}" in pairs} == pairs
