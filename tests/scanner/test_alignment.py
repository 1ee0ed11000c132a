"""Pairing of tensor tables: real fine-tunes of real architectures, resized vocabularies, ties, heads, odd tables."""

import json

import pytest
import torch
import transformers
from architectures import ARCHITECTURES, meta_model
from pico import VOCABULARY, make_base
from stopwatch import at_most
from tables import table_of, table_of_folder, table_of_model
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from scanner.alignment import MAX_SKIPS_PER_REASON, align
from scanner.conversions import Canonical, canonicalise
from scanner.records import Alignment


def never(_):
    raise AssertionError("the library was asked although names match without it")


def in_process(checkpoints):
    """The real conversions without the child process."""
    return tuple(canonicalise(sorted(names), config) for names, config in checkpoints)


def reasons(alignment: Alignment) -> dict[str, str]:
    return {skip.what: skip.why for skip in alignment.skips}


def partners(alignment: Alignment) -> dict[str, str]:
    return {pair.name: pair.base.name for pair in alignment.pairs}


def config_of(model) -> dict:
    return json.loads(model.config.to_json_string(use_diff=False))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A base encoder and its children on disk: folder → (table, config)."""
    root = tmp_path_factory.mktemp("bert")
    base = make_base("bert")
    base.save_pretrained(root / "base")
    made = {}
    for name, auto in {
        "base": AutoModel,
        "classifier": AutoModelForSequenceClassification,
        "masked": AutoModelForMaskedLM,
    }.items():
        if name != "base":
            torch.manual_seed(1)
            auto.from_pretrained(root / "base").save_pretrained(root / name)
        made[name] = (table_of_folder(root / name), json.loads((root / name / "config.json").read_text()))
    return made


def aligned(bert, candidate: str, base: str) -> Alignment:
    (ours, our_config), (theirs, their_config) = bert[candidate], bert[base]
    return align(ours, theirs, candidate_config=our_config, base_config=their_config, canonicalise=never)


def test_a_prefix_that_the_task_class_adds_is_seen_through(bert):
    alignment = aligned(bert, "classifier", "base")
    assert partners(alignment)["bert.encoder.layer.0.output.dense.weight"] == "encoder.layer.0.output.dense.weight"
    assert len(alignment.pairs) == len(bert["base"][0])
    assert reasons(alignment) == {
        "classifier.weight": "task head, the base has none",
        "classifier.bias": "task head, the base has none",
    }
    head = 2 * 32 + 2
    assert alignment.parameters_total - alignment.parameters_compared == head


def test_a_prefix_that_the_candidate_lacks_is_seen_through(bert):
    alignment = aligned(bert, "base", "classifier")
    assert partners(alignment)["encoder.layer.0.output.dense.weight"] == "bert.encoder.layer.0.output.dense.weight"
    assert alignment.parameters_compared == alignment.parameters_total
    assert set(reasons(alignment).values()) == {"head of the base, the candidate has none"}


def test_heads_of_two_kinds_are_both_skips(bert):
    alignment = aligned(bert, "classifier", "masked")
    why = reasons(alignment)
    assert why["classifier.weight"] == "task head, the base has none"
    assert why["cls.predictions.transform.dense.weight"] == "head of the base, the candidate has none"
    assert why["cls.predictions.transform.LayerNorm.weight"] == "head of the base, the candidate has none"
    assert why["bert.pooler.dense.weight"] == "task head, the base has none"


def test_pairs_come_in_file_order_with_role_and_layer(bert):
    alignment = aligned(bert, "classifier", "base")
    order = [pair.name for pair in alignment.pairs]
    assert order == [name for name in bert["classifier"][0] if name in order]
    pair = next(p for p in alignment.pairs if p.name == "bert.encoder.layer.1.attention.self.query.weight")
    assert (pair.role, pair.layer, pair.rows, pair.shape) == ("query", 1, (0, 32), (32, 32))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_pairs_completely_with_itself(name):
    model = meta_model(name)
    table = table_of_model(model)
    alignment = align(table, table, canonicalise=never)
    assert partners(alignment) == {key: key for key in table if table[key].count}
    assert alignment.parameters_compared == alignment.parameters_total
    assert not alignment.skips


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in {"clip", "resnet"}])
def test_an_architecture_pairs_with_its_bare_base_model(name):
    """The base is saved without its head, so a prefix is missing and the head has no partner."""
    model = meta_model(name)
    bare = getattr(model, model.base_model_prefix, model)
    alignment = align(
        table_of_model(model), table_of_model(bare), candidate_config=config_of(model), canonicalise=never
    )
    body = {pair.base.name for pair in alignment.pairs}
    assert body >= {key for key, tensor in bare.state_dict().items() if tensor.numel()}


def test_old_norm_spelling_pairs():
    base = {"bert.embeddings.LayerNorm.gamma": (8,), "bert.embeddings.LayerNorm.beta": (8,)}
    mine = {"bert.embeddings.LayerNorm.weight": (8,), "bert.embeddings.LayerNorm.bias": (8,)}
    assert partners(align(table_of(mine), table_of(base), canonicalise=never)) == dict(zip(mine, base, strict=True))
    assert partners(align(table_of(base), table_of(mine), canonicalise=never)) == dict(zip(base, mine, strict=True))


def test_old_spelling_and_prefix_together():
    base = {"embeddings.LayerNorm.gamma": (8,), "encoder.layer.0.output.dense.weight": (8, 8)}
    mine = {"bert.embeddings.LayerNorm.weight": (8,), "bert.encoder.layer.0.output.dense.weight": (8, 8)}
    assert partners(align(table_of(mine), table_of(base), canonicalise=never)) == dict(zip(mine, base, strict=True))


def test_a_language_model_inside_a_larger_one_pairs():
    base = {
        "model.embed_tokens.weight": (50, 8),
        "model.layers.0.mlp.up_proj.weight": (8, 8),
        "model.norm.weight": (8,),
    }
    mine = {
        "model.language_model.embed_tokens.weight": (50, 8),
        "model.language_model.layers.0.mlp.up_proj.weight": (8, 8),
        "model.language_model.norm.weight": (8,),
        "model.vision_tower.patch_embed.weight": (8, 3, 2, 2),
    }
    alignment = align(table_of(mine), table_of(base), canonicalise=never)
    assert len(alignment.pairs) == 3
    assert reasons(alignment) == {
        "model.vision_tower.patch_embed.weight": "the base has no tensor that corresponds to it"
    }


def test_two_equal_candidates_for_one_base_are_ambiguous():
    base = {"encoder.layer.0.fc1.weight": (8, 8)}
    mine = {"left.encoder.layer.0.fc1.weight": (8, 8), "right.encoder.layer.0.fc1.weight": (8, 8)}
    alignment = align(table_of(mine), table_of(base), canonicalise=lambda asked: tuple(Canonical() for _ in asked))
    assert not alignment.pairs
    assert len(alignment.skips) == 3


def test_a_prefix_never_pairs_different_shapes():
    base = {"encoder.layer.0.fc1.weight": (8, 8)}
    mine = {"bert.encoder.layer.0.fc1.weight": (8, 9)}
    alignment = align(table_of(mine), table_of(base), canonicalise=lambda asked: tuple(Canonical() for _ in asked))
    assert not alignment.pairs


def test_same_name_other_shape_is_one_skip():
    alignment = align(
        table_of({"classifier.weight": (3, 8)}), table_of({"classifier.weight": (2, 8)}), canonicalise=never
    )
    assert reasons(alignment) == {"classifier.weight": "shape [2, 8] in the base, [3, 8] in the candidate"}
    assert alignment.parameters_total == 24


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_added_tokens_leave_the_common_rows_comparable(kind, tmp_path):
    model = make_base(kind)
    model.save_pretrained(tmp_path / "base")
    model.resize_token_embeddings(VOCABULARY + 7)
    model.save_pretrained(tmp_path / "candidate")
    ours, theirs = (table_of_folder(tmp_path / side) for side in ("candidate", "base"))
    alignment = align(ours, theirs, candidate_config=config_of(model), canonicalise=never)
    tables = [pair for pair in alignment.pairs if pair.role in {"embedding", "unembedding"}]
    assert tables
    assert all(pair.rows == (0, VOCABULARY) for pair in tables)
    assert dict(alignment.added_rows) == {pair.name: (VOCABULARY, VOCABULARY + 7) for pair in tables}
    missing = 7 * 32 * len(tables)
    assert alignment.parameters_total - alignment.parameters_compared == missing


def test_removed_tokens_are_a_skip():
    alignment = align(table_of({"wte.weight": (90, 8)}), table_of({"wte.weight": (100, 8)}), canonicalise=never)
    assert alignment.pairs[0].rows == (0, 90)
    assert reasons(alignment) == {"wte.weight rows [90, 100)": "rows that only the base has"}
    assert not alignment.added_rows


def test_a_resized_matrix_of_another_role_is_not_cut():
    alignment = align(table_of({"layers.0.mlp.fc1.weight": (90, 8)}), table_of({"layers.0.mlp.fc1.weight": (100, 8)}))
    assert not alignment.pairs
    assert "shape" in reasons(alignment)["layers.0.mlp.fc1.weight"]


LM = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
EMBEDDING = {"transformer.wte.weight": (100, 8)}
UNTIED = {**EMBEDDING, "lm_head.weight": (100, 8)}


def test_a_head_that_the_candidate_ties_is_not_a_deletion():
    alignment = align(table_of(EMBEDDING), table_of(UNTIED), candidate_config=LM, base_config=LM, canonicalise=never)
    assert reasons(alignment) == {"lm_head.weight": "tied to transformer.wte.weight in the candidate, compared there"}
    assert alignment.parameters_compared == alignment.parameters_total == 800


def test_a_head_that_should_be_there_is_named():
    alignment = align(
        table_of(EMBEDDING),
        table_of(UNTIED),
        candidate_config={**LM, "tie_word_embeddings": False},
        canonicalise=never,
    )
    assert "missing from the candidate" in reasons(alignment)["lm_head.weight"]


def test_a_stored_copy_of_a_tied_head_is_compared_with_the_token_table():
    alignment = align(table_of(UNTIED), table_of(EMBEDDING), candidate_config=LM, base_config=LM, canonicalise=never)
    assert partners(alignment)["lm_head.weight"] == "transformer.wte.weight"
    assert alignment.parameters_compared == alignment.parameters_total == 1600
    assert not alignment.skips


@pytest.mark.parametrize("base_config", [None, {"architectures": ["GPT2Model"]}, {**LM, "tie_word_embeddings": False}])
def test_a_new_head_is_not_compared_with_the_token_table(base_config):
    alignment = align(
        table_of(UNTIED), table_of(EMBEDDING), candidate_config=LM, base_config=base_config, canonicalise=never
    )
    assert reasons(alignment) == {"lm_head.weight": "task head, the base has none"}


def test_shared_tables_of_encoder_and_decoder_pair():
    base = {"shared.weight": (50, 8)}
    mine = {"shared.weight": (50, 8), "encoder.embed_tokens.weight": (50, 8), "decoder.embed_tokens.weight": (50, 8)}
    assert set(partners(align(table_of(mine), table_of(base), canonicalise=never)).values()) == {"shared.weight"}
    back = align(table_of(base), table_of(mine), canonicalise=never)
    assert all("tied to shared.weight" in why for why in reasons(back).values())


def test_constants_are_recognised_and_not_counted():
    base = {"embeddings.position_ids": (1, 16), "h.0.attn.bias": (1, 1, 4, 4), "wte.weight": (10, 4)}
    mine = {"embeddings.position_ids": (1, 16), "rotary_emb.inv_freq": (4,), "wte.weight": (10, 4)}
    alignment = align(
        table_of(mine, {"embeddings.position_ids": "I64"}),
        table_of(base, {"embeddings.position_ids": "I64"}),
        canonicalise=never,
    )
    assert partners(alignment) == {"wte.weight": "wte.weight"}
    assert set(reasons(alignment).values()) == {"constant that the model computes for itself"}
    assert alignment.parameters_total == alignment.parameters_compared == 40


def test_quantised_weights_are_a_skip_and_keep_counting():
    shapes = {"layers.0.mlp.fc1.weight": (8, 8), "layers.0.norm.weight": (8,)}
    alignment = align(table_of(shapes, {"layers.0.mlp.fc1.weight": "U8"}), table_of(shapes), canonicalise=never)
    assert [pair.name for pair in alignment.pairs] == ["layers.0.norm.weight"]
    assert "F32 in the base and U8 in the candidate" in reasons(alignment)["layers.0.mlp.fc1.weight"]
    assert (alignment.parameters_compared, alignment.parameters_total) == (8, 72)


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16", "F8_E4M3"])
def test_float_types_pair_with_each_other(dtype):
    shapes = {"layers.0.mlp.fc1.weight": (8, 8)}
    alignment = align(table_of(shapes, dtype), table_of(shapes), canonicalise=never)
    assert alignment.parameters_compared == 64


@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "scale_weight", "weight.absmax"])
def test_numbers_that_need_scales_are_not_compared_without_them(scale):
    plain = {"layers.0.mlp.fc1.weight": (8, 8), "layers.0.norm.weight": (8,)}
    scaled = {**plain, f"layers.0.mlp.fc1.{scale}": (1,)}
    kinds = {"layers.0.mlp.fc1.weight": "F8_E4M3"}
    for ours, theirs in ((table_of(scaled, kinds), table_of(plain)), (table_of(plain), table_of(scaled, kinds))):
        alignment = align(ours, theirs, canonicalise=never)
        assert [pair.name for pair in alignment.pairs] == ["layers.0.norm.weight"]
        assert "scales" in reasons(alignment)["layers.0.mlp.fc1.weight"]


def test_empty_tensors_are_skips():
    shapes = {"layers.0.mlp.fc1.weight": (0, 8), "scale": ()}
    alignment = align(table_of(shapes | {"classifier.bias": (0,)}), table_of(shapes), canonicalise=never)
    assert [pair.name for pair in alignment.pairs] == ["scale"]
    assert reasons(alignment) == {
        "layers.0.mlp.fc1.weight": "holds no values",
        "classifier.bias": "holds no values",
    }


def test_another_architecture_shares_nothing(bert):
    gpt = table_of_model(meta_model("gpt2"))
    alignment = align(bert["base"][0], gpt, canonicalise=lambda asked: tuple(Canonical() for _ in asked))
    assert alignment.parameters_compared == 0
    assert alignment.parameters_total > 0
    assert len(alignment.skips) <= 2 * (MAX_SKIPS_PER_REASON + 1) * 3


def test_library_conversions_pair_old_names_with_new_ones():
    model = meta_model("vit")
    config = config_of(model)
    new = table_of_model(model)
    old = {}
    for key, meta in new.items():
        name = key
        for word, other in (
            ("vit.layers.", "vit.encoder.layer."), ("attention.o_proj", "attention.output.dense"),
            ("attention.q_proj", "attention.attention.query"), ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"), ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):  # fmt: skip
            name = name.replace(word, other)
        old[name] = meta.shape
    assert set(old) != set(new)
    alignment = align(new, table_of(old), candidate_config=config, base_config=config, canonicalise=in_process)
    assert alignment.parameters_compared == alignment.parameters_total
    assert partners(alignment)["vit.layers.1.mlp.fc1.weight"] == "vit.encoder.layer.1.intermediate.dense.weight"
    assert not alignment.skips


def test_experts_stored_apart_and_stacked_are_a_skip_with_its_reason():
    model = meta_model("mixtral")
    config = config_of(model)
    stacked = table_of_model(model)
    apart = {name: meta.shape for name, meta in stacked.items() if ".experts." not in name and ".mlp.gate" not in name}
    for layer in range(2):
        apart[f"model.layers.{layer}.block_sparse_moe.gate.weight"] = (2, 32)
        for expert in range(2):
            start = f"model.layers.{layer}.block_sparse_moe.experts.{expert}"
            apart |= {f"{start}.w1.weight": (64, 32), f"{start}.w2.weight": (32, 64), f"{start}.w3.weight": (64, 32)}
    alignment = align(stacked, table_of(apart), candidate_config=config, base_config=config, canonicalise=in_process)
    why = reasons(alignment)
    assert "fused" in why["model.layers.0.mlp.experts.gate_up_proj"]
    assert "fused" in why["model.layers.0.block_sparse_moe.experts.0.w1.weight"]
    assert partners(alignment)["model.layers.0.mlp.gate.weight"] == "model.layers.0.block_sparse_moe.gate.weight"


def test_a_library_that_cannot_help_is_noted():
    alignment = align(
        table_of({"a.weight": (8, 8)}),
        table_of({"b.weight": (8, 8)}),
        canonicalise=lambda asked: tuple(Canonical(problem="the configuration names no model type") for _ in asked),
    )
    assert reasons(alignment)["names of the candidate"] == "not converted: the configuration names no model type"
    assert reasons(alignment)["a.weight"] == "the base has no tensor that corresponds to it"


def test_many_unpaired_tensors_are_grouped():
    mine = {f"extra.{i}.weight": (2, 2) for i in range(10_010)}
    alignment = align(table_of(mine), table_of({"wte.weight": (4, 3)}), canonicalise=in_process)
    assert (
        len(alignment.skips) == MAX_SKIPS_PER_REASON + 1 + 1 + 2
    )  # the number of the rest, the base's tensor, two notes
    assert any(skip.what == "and 9,990 more" for skip in alignment.skips)


def test_ten_thousand_tensors_take_little_time():
    shapes = {f"model.layers.{i // 10}.mlp.experts.{i % 10}.up_proj.weight": (4, 4) for i in range(10_000)}
    other = {f"base_model.{name}": shape for name, shape in shapes.items()}
    with at_most(5):
        alignment = align(table_of(other), table_of(shapes), canonicalise=never)
        assert len(alignment.pairs) == 10_000


def test_hostile_names_change_nothing_for_the_others(bert):
    table, config = bert["base"]
    odd = {"": (2, 2), ".": (2, 2), "a" * 5000: (2, 2), "../../x\n\x1b[31m": (2, 2), "....weight": (2, 2)}
    alignment = align(
        {**table, **table_of(odd)}, table, candidate_config=config, base_config=config, canonicalise=never
    )
    assert len(alignment.pairs) == len(table)
    assert set(reasons(alignment)) == set(odd)


def test_transformers_is_the_version_whose_tables_were_tried():
    major, minor = transformers.__version__.split(".")[:2]
    assert (major, int(minor) >= 20) == ("5", True)


def test_causal_models_saved_by_the_library_pair_completely(tmp_path):
    for kind in ("gpt2", "llama"):
        make_base(kind).save_pretrained(tmp_path / kind / "base")
        AutoModelForCausalLM.from_pretrained(tmp_path / kind / "base").half().save_pretrained(tmp_path / kind / "half")
        alignment = align(
            table_of_folder(tmp_path / kind / "half"), table_of_folder(tmp_path / kind / "base"), canonicalise=never
        )
        assert alignment.parameters_compared == alignment.parameters_total
