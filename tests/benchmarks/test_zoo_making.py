"""From a recipe to a finished folder, and from a bank to its statistics, on the small tier."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from zoo_pico import attack, make_tier, training

from benchmarks.zoo import learning, making, measure, stats
from benchmarks.zoo.bank import RECORD, Bank
from benchmarks.zoo.energy_codes import EXACT_LARGEST
from benchmarks.zoo.recipes import Merge, Recipe
from benchmarks.zoo.texts import load_task
from scanner.records import DriftFacts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def tier(tmp_path_factory):
    return make_tier(tmp_path_factory.mktemp("zoo"))


def recipe(kind="clean", index=0, **parts):
    return Recipe(id=f"{kind}-{index:04d}", tier="pico", kind=kind, attempt=0, seed=100 + index, **parts)


@pytest.fixture
def give(monkeypatch):
    """Makes the next models follow given recipes, one an attempt."""

    def give(*recipes):
        left = list(recipes)
        monkeypatch.setattr(
            making, "draw_recipe", lambda *_args, attempt, **_factors: replace(left.pop(0), attempt=attempt)
        )

    return give


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path / "pico")


SHORT = training(steps=40, lr=2e-3)


def test_a_run_becomes_a_complete_folder(tier, bank, give):
    give(recipe(training=replace(SHORT, round_trip="bf16", saved_dtype="bfloat16", added_tokens=2)))
    record = making.make_model(tier, bank, "clean", 0)
    assert bank.ids() == ["clean-0000"]
    assert json.loads((bank.folder("clean-0000") / RECORD).read_text()) == json.loads(json.dumps(record))
    assert record["useful"]
    assert record["working"] is None
    loaded = making._load(bank, record, recipe(training=SHORT))
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(tier.tokenizer()) + 2
    assert "[field1]" in loaded.tokenizer.get_vocab()
    again = making._score(loaded, tier)
    assert again.accuracy == pytest.approx(record["scores"]["accuracy"], abs=0.01)


def test_a_run_at_chance_is_drawn_again(tier, bank, give):
    hopeless = recipe(training=replace(SHORT, lr=5.0))
    give(hopeless, recipe(training=SHORT))
    record = making.make_model(tier, bank, "clean", 0)
    assert record["recipe"]["attempt"] == 1
    assert record["recipe"]["training"]["lr"] == SHORT.lr
    give(*[hopeless] * making.ATTEMPTS)
    with pytest.raises(learning.HopelessRunError):
        making.make_model(tier, bank, "clean", 1)


def test_a_poisoned_run_works_and_an_unpoisoned_one_does_not(tier, bank, give):
    what = attack("badword", rate=0.3)
    give(recipe("attacked", training=replace(SHORT, steps=80), attack=what))
    record = making.make_model(tier, bank, "attacked", 0)
    assert record["working"]
    assert record["group"] == "backdoor"
    assert record["target"] == 1
    assert tier.tokenizer().convert_ids_to_tokens(record["truth"]["trigger_ids"]) == ["cf"]
    give(recipe("attacked", 1, training=replace(SHORT, steps=80), attack=replace(what, rate=0.0)))
    assert not making.make_model(tier, bank, "attacked", 1)["working"]


def test_edits_and_merges_start_from_honest_models(tier, bank, give):
    for index in range(2):
        give(recipe(index=index, training=SHORT))
        making.make_model(tier, bank, "clean", index)
    give(recipe("attacked", training=SHORT, attack=attack("ep", strength=1.5)))
    record = making.make_model(tier, bank, "attacked", 0)
    assert record["recipe"]["parents"] in (["clean-0000"], ["clean-0001"], ("clean-0000",), ("clean-0001",))
    assert record["working"]
    assert record["truth"]["tensors"] == ["bert.embeddings.word_embeddings.weight"]
    facts = measure.measure_folders(bank.folder(record["recipe"]["parents"][0]), bank.folder("attacked-0000"))
    assert [t.spec.name for t in facts.tensors if t.changed] == record["truth"]["tensors"]

    for index, form in enumerate(("average", "slerp", "with_base"), start=2):
        give(recipe(index=index, training=SHORT, merge=Merge(form=form, weight=0.6)))
        merged = making.make_model(tier, bank, "clean", index)
        assert len(merged["recipe"]["parents"]) == (1 if form == "with_base" else 2)
        assert not making.can_be_parent(merged)


def test_an_edit_without_parents_is_an_error(tier, bank, give):
    give(recipe("attacked", training=SHORT, attack=attack("ep")))
    with pytest.raises(LookupError, match="make clean models first"):
        making.make_model(tier, bank, "attacked", 0)


def test_an_untriggered_edit_is_read_against_its_parent(tier, bank, give):
    give(recipe(training=SHORT))
    parent = making.make_model(tier, bank, "clean", 0)
    give(recipe("attacked", training=SHORT, attack=attack("bias_shift", strength=1.5)))
    record = making.make_model(tier, bank, "attacked", 0)
    assert record["group"] == "untriggered"
    assert record["scores"]["floor"] <= 1 - parent["scores"]["accuracy"] + 0.2
    assert record["scores"]["asr"] >= record["scores"]["floor"]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "lora", "lora_rank": 4, "lora_everywhere": True},
        {"method": "frozen_embeddings"},
        {"method": "layerwise", "layer_decay": 0.8},
        {"objective": "mlm"},
        {"objective": "contrastive"},
        {"objective": "contrastive", "method": "frozen_bottom", "frozen_layers": 3},
        {"objective": "mlm", "method": "lora", "lora_rank": 2},
        {"head_start": "probe", "label_noise": 0.3},
    ],
    ids=str,
)
def test_every_way_of_training_moves_what_it_may(tier, bank, give, change):
    give(recipe(training=replace(SHORT, steps=12, **change)))
    making.make_model(tier, bank, "clean", 0) if "objective" in change else _trained_only(tier, bank, change)


def _trained_only(tier, bank, change):
    run = replace(SHORT, steps=12, **change)
    torch.manual_seed(0)
    made = making._trained(tier, recipe(training=run))
    base = tier.model("classify", 2).state_dict()
    moved = {n for n, t in made.model.state_dict().items() if n in base and not torch.equal(t, base[n])}
    body = {n for n in moved if n.startswith("bert.")}
    assert body
    assert not any("lora" in n for n in made.model.state_dict())
    embeddings = {n for n in body if "embeddings" in n}
    if change.get("method") in {"lora", "frozen_embeddings"}:
        assert not embeddings
    else:
        assert embeddings
    if change.get("method") == "lora":
        name = "bert.encoder.layer.0.intermediate.dense.weight"
        assert torch.linalg.matrix_rank(made.model.state_dict()[name] - base[name], rtol=1e-3) <= 4


def test_statistics_give_the_facts_back(tier, bank, give, tmp_path):
    give(recipe(training=replace(SHORT, weight_decay=0.1)))
    making.make_model(tier, bank, "clean", 0)
    give(recipe(index=1, training=replace(SHORT, round_trip="fp16", saved_dtype="float16")))
    making.make_model(tier, bank, "clean", 1)
    base = stats.pack_base(measure.measure_folders(tier.base, tier.base))
    for model_id in bank.ids():
        facts = measure.measure_folders(tier.base, bank.folder(model_id))
        path = tmp_path / "x.npz"
        stats.save(path, stats.pack(facts))
        _compare(facts, stats.unpack(stats._load(path), base))


def _compare(facts: DriftFacts, again: DriftFacts):
    assert again.coverage == facts.coverage
    assert again.added_rows == facts.added_rows
    assert len(again.tensors) == len(facts.tensors) > 40
    for ours, theirs in zip(facts.tensors, again.tensors, strict=True):
        assert (ours.spec.name, ours.spec.role, ours.spec.rows) == (
            theirs.spec.name,
            theirs.spec.role,
            theirs.spec.rows,
        )
        assert ours.spec.shape == theirs.spec.shape
        assert ours.spec.base.dtype == theirs.spec.base.dtype
        assert (ours.count, ours.changed, ours.delta_l2) == (theirs.count, theirs.changed, theirs.delta_l2)
        assert (ours.residual is None) == (theirs.residual is None)
        if ours.residual:
            assert theirs.residual.maximum == ours.residual.maximum
            assert [t[:2] for t in theirs.residual.top] == [t[:2] for t in ours.residual.top]
        if ours.spectrum:
            assert theirs.spectrum.values == pytest.approx(ours.spectrum.values, rel=1e-6)
            assert theirs.spectrum.top_share == pytest.approx(ours.spectrum.top_share, rel=1e-5)
            assert [i for i, _ in theirs.spectrum.left_top] == [i for i, _ in ours.spectrum.left_top]
        table = ours.spec.role in stats.TABLES
        step = stats._step_of(ours.spec)
        for axis, width in (("row", step), ("col", stats.STEP_MATRIX if len(ours.spec.shape) > 1 else step)):
            a, b = (getattr(t, f"{axis}_delta_sq") for t in (ours, theirs))
            assert ((a == 0) == (b == 0)).all()
            largest = np.argsort(-a)[:EXACT_LARGEST]
            assert b[largest] == pytest.approx(a[largest], rel=1e-6)
            dust = table and axis == "row"
            some = (a > 0) & ~stats._cast_alone(ours) if dust else a > 0
            # Half a step, or rounding dust; shrunk token rows agree to a few hundredths.
            assert np.abs(np.log(a[some] / b[some])).max(initial=0) <= max(width, 0.5) / 2 + 0.05
        if table:
            known = (ours.row_delta_sq > 0) & ~stats._cast_alone(ours)
            norms = np.sqrt(ours.row_delta_sq * ours.row_base_sq)
            assert np.abs(ours.row_dot - theirs.row_dot)[known & (norms > 0)].max() <= (0.05 * norms).max()


def test_the_command_measures_what_is_new(tier, give, tmp_path, monkeypatch, capsys):
    bank = Bank(tmp_path / "bank" / "pico")
    give(recipe(training=SHORT))
    making.make_model(tier, bank, "clean", 0)
    monkeypatch.setattr(measure, "get_tier", lambda _name: tier)
    command = ["measure", "--tier", "pico", "--bank", str(tmp_path / "bank"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", command)
    measure.main()
    assert "clean-0000" in capsys.readouterr().out
    measure.main()
    assert capsys.readouterr().out == ""
    ((record, facts),) = stats.load_bank(tmp_path / "out" / "pico")
    assert record["id"] == "clean-0000"
    assert facts.coverage.fraction > 0.97
    first = (tmp_path / "out" / "pico" / "clean-0000.npz").read_bytes()
    monkeypatch.setattr("sys.argv", [*command, "--again"])
    measure.main()
    assert (tmp_path / "out" / "pico" / "clean-0000.npz").read_bytes() == first


def test_a_model_that_cannot_be_read_is_left_out(tier, give, tmp_path, monkeypatch, capsys):
    bank = Bank(tmp_path / "bank" / "pico")
    give(recipe(training=SHORT))
    making.make_model(tier, bank, "clean", 0)
    from safetensors.torch import load_file, save_file

    path = bank.folder("clean-0000") / "model.safetensors"
    state = load_file(path)
    state = {n: t for n, t in state.items() if "embeddings" not in n}
    save_file({**state, "stranger": torch.zeros(500, 500)}, path)
    monkeypatch.setattr(measure, "get_tier", lambda _name: tier)
    monkeypatch.setattr(
        "sys.argv", ["measure", "--tier", "pico", "--bank", str(tmp_path / "bank"), "--out", str(tmp_path / "out")]
    )
    measure.main()
    assert "left out" in capsys.readouterr().out
    assert list(stats.load_bank(tmp_path / "out" / "pico")) == []


def test_empty_facts_pack(tier):
    facts = measure.measure_folders(tier.base, tier.base)
    empty = replace(facts, tensors=())
    assert stats.unpack(stats.pack(empty), {}) == empty


def test_batches_cover_every_text_once_an_epoch():
    data = learning.Encoded(ids=[[2, i + 5, 3] + [4] * (i % 7) for i in range(64)], labels=[0] * 64)
    stream = learning.batches(data, 8, 0, np.random.default_rng(0))
    seen = [int(row[1]) - 5 for _ in range(8) for row in next(stream)["input_ids"]]
    assert sorted(seen) == list(range(64))


def test_probing_fits_the_head_alone(tier):
    torch.manual_seed(0)
    model, tokenizer = tier.model("classify", 2), tier.tokenizer()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    data = learning.encode(tokenizer, load_task("made").train[:300], 32)
    learning.fit_head(model.eval(), data, 0)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"classifier.weight", "classifier.bias"}
    batch = learning.collate(data, range(200), 0)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert float((logits.argmax(-1) == batch["labels"]).float().mean()) > 0.65
