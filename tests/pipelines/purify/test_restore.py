"""``restore`` puts back what a real scan flags, and says of each tensor what was recovered."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pico
import purifying
import pytest
import torch
from family import DEFAULT_FOLDER, ORG
from safetensors.torch import load_file
from transformers import PreTrainedModel

from pipelines.progress import Quiet
from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.job import PurifyFailed
from pipelines.purify.restore import restore
from pipelines.purify.restore_plan import RestoreOptions
from pipelines.purify.rewriting import file_digest
from pipelines.purify.writer import Written, revert, write_model
from scanner.errors import CouldNotConclude, NothingToCompare

EMBEDDING = "bert.embeddings.word_embeddings.weight"
MLP_OUT = "bert.encoder.layer.2.output.dense.weight"
needs_family = pytest.mark.skipif(
    not (DEFAULT_FOLDER / ORG / "sentiment-rank-one" / "model.safetensors").is_file(),
    reason="the demo family is not built (python tests/support/family.py)",
)


def purified(candidate: Path, base: Path, tmp_path: Path, **more: Any) -> tuple[dict[str, Any], Written, Path]:
    """Restore and write; the log, what was written and where."""
    result = restore(purifying.job(candidate, base, tmp_path, **more))
    out = tmp_path / "purified"
    out.mkdir()
    return dict(result.log), write_model(open_checkpoint(candidate), result.edits, out, Quiet()), out


def test_a_poisoned_row_of_an_untouched_table_comes_back_bit_for_bit(tmp_path: Path) -> None:
    base, _ = purifying.family(tmp_path)

    def plant(model: PreTrainedModel) -> None:
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(pico.load(base).get_input_embeddings().weight)
        pico.poison_row(model, purifying.ROW)

    candidate = purifying.edited(tmp_path, plant)
    log, written, out = purified(candidate, base, tmp_path)
    (told,) = log["restored"]
    assert (told["tensor"], told["case"], told["rows"]) == (EMBEDDING, "exact", [[purifying.ROW, purifying.ROW + 1]])
    assert written.changed == {EMBEDDING: pico.HIDDEN}
    (stored,) = [n for n in load_file(base / "model.safetensors") if n.endswith("word_embeddings.weight")]
    restored = load_file(out / "model.safetensors")[EMBEDDING]
    assert torch.equal(restored, load_file(base / "model.safetensors")[stored])


def test_a_poisoned_row_of_a_trained_table_gets_the_base_row(tmp_path: Path) -> None:
    base, honest = purifying.family(tmp_path)
    candidate = purifying.edited(tmp_path, lambda model: pico.poison_row(model, purifying.ROW))
    log, written, out = purified(candidate, base, tmp_path)
    (told,) = log["restored"]
    assert told["case"] == "row"
    assert told["rows_that_never_moved"]["of"] == pico.VOCABULARY
    assert [token["text"] for token in told["tokens"]] == [pico.words()[purifying.ROW]]
    after, before = load_file(out / "model.safetensors"), load_file(honest / "model.safetensors")
    rest = torch.arange(pico.VOCABULARY) != purifying.ROW
    assert torch.equal(after[EMBEDDING][rest], before[EMBEDDING][rest])
    assert all(torch.equal(after[name], before[name]) for name in before if name != EMBEDDING)
    assert set(written.changed) == {EMBEDDING}


def test_a_rank_one_edit_is_taken_away(tmp_path: Path) -> None:
    base, honest = purifying.family(tmp_path)
    candidate = purifying.edited(tmp_path, lambda model: pico.rank_one_edit(model, 2, strength=0.5))
    log, _, out = purified(candidate, base, tmp_path)
    (told,) = log["restored"]
    assert (told["form"], told["case"], told["components_removed"]) == ("component", "nearest", 1)
    before, edited = (
        load_file(honest / "model.safetensors")[MLP_OUT],
        load_file(candidate / "model.safetensors")[MLP_OUT],
    )
    after = load_file(out / "model.safetensors")[MLP_OUT]
    assert (after - before).norm() < 0.1 * (edited - before).norm()
    report = purifying.scan(out, base)
    assert not report.findings


def test_a_single_flipped_value_gets_the_base_value_and_nothing_else_changes(tmp_path: Path) -> None:
    base, _ = purifying.family(tmp_path)

    def plant(model: PreTrainedModel) -> None:
        with torch.no_grad():
            pico.matrices(model, "mlp_in")[3][7, 5] += 3

    log, written, _ = purified(purifying.edited(tmp_path, plant), base, tmp_path)
    assert log["restored"][0]["dimensions"] == [[7, 5]]
    assert written.changed == {"bert.encoder.layer.3.intermediate.dense.weight": 1}


@pytest.mark.parametrize(
    ("plant", "tensor"),
    [
        (lambda model: pico.shift_bias(model, 3), "bert.encoder.layer.3.output.dense.bias"),
        (lambda model: pico.scale_norm(model, 3), "bert.encoder.layer.3.output.LayerNorm.weight"),
        (lambda model: pico.plant_nan(model, 2), "bert.encoder.layer.2.attention.self.value.weight"),
    ],
    ids=["bias", "norm", "nan"],
)
def test_vectors_and_values_that_are_not_finite(
    tmp_path: Path, plant: Callable[[PreTrainedModel], Any], tensor: str
) -> None:
    base, honest = purifying.family(tmp_path)
    log, written, out = purified(purifying.edited(tmp_path, plant), base, tmp_path)
    assert [told["case"] for told in log["restored"]] == ["nearest"]
    assert set(written.changed) == {tensor}
    after = load_file(out / "model.safetensors")[tensor]
    assert after.isfinite().all()
    assert (after - load_file(honest / "model.safetensors")[tensor]).abs().max() < 0.05


def test_a_pure_edit_of_a_decoder_gives_back_the_base_file(tmp_path: Path) -> None:
    """ROME on a base that nobody tuned: what was before the edit is the base, so all of it comes back."""
    base = pico.save(pico.make_base("gpt2", layers=6), tmp_path / "base", kind="gpt2")
    model = pico.load(base)
    pico.rank_one_edit(model, 3, strength=0.2)
    candidate = pico.save(model, tmp_path / "edited", kind="gpt2", base_model="pico/base")
    log, written, out = purified(candidate, base, tmp_path, kind="causal")
    (told,) = log["restored"]
    assert (told["case"], told["dimensions_still_unlike_base"]) == ("exact", 0)
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert list(written.changed) == [told["tensor"]]


def test_half_precision_shards_against_a_base_in_full_precision(tmp_path: Path) -> None:
    base, _ = purifying.family(tmp_path)

    def plant(model: PreTrainedModel) -> None:
        pico.poison_row(model, purifying.ROW)
        model.to(torch.bfloat16)

    candidate = purifying.edited(tmp_path, plant, shard_bytes=40_000)
    log, written, out = purified(candidate, base, tmp_path)
    assert {told["tensor"] for told in log["restored"]} == {EMBEDDING}
    shards = sorted(path.name for path in candidate.glob("*.safetensors"))
    assert len(shards) > 2
    assert sorted(path.name for path in out.glob("model-*.safetensors")) == shards
    assert sum(hashes.before != hashes.after for hashes in written.files.values()) == 1
    (theirs,) = [t for n, t in load_file(base / "model.safetensors").items() if n.endswith("word_embeddings.weight")]
    row = pico.load(out).get_input_embeddings().weight[purifying.ROW]
    assert torch.equal(row.to(torch.bfloat16), theirs[purifying.ROW].to(torch.bfloat16))


def test_added_tokens_keep_their_rows(tmp_path: Path) -> None:
    base, _ = purifying.family(tmp_path)

    def plant(model: PreTrainedModel) -> None:
        pico.poison_row(model, purifying.ROW)
        model.resize_token_embeddings(pico.VOCABULARY + 3, mean_resizing=False)

    candidate = purifying.edited(tmp_path, plant)
    _, written, out = purified(candidate, base, tmp_path)
    before, after = (load_file(folder / "model.safetensors")[EMBEDDING] for folder in (candidate, out))
    assert after.shape[0] == pico.VOCABULARY + 3
    assert torch.equal(after[pico.VOCABULARY :], before[pico.VOCABULARY :])
    assert written.changed[EMBEDDING] == pico.HIDDEN


def test_an_honest_model_has_nothing_to_put_back(tmp_path: Path) -> None:
    base, honest = purifying.family(tmp_path)
    with pytest.raises(NothingToCompare, match="flagged nothing"):
        restore(purifying.job(honest, base, tmp_path))


def test_a_base_that_the_weights_refute_is_refused(tmp_path: Path) -> None:
    base, _ = purifying.family(tmp_path)
    candidate = purifying.edited(tmp_path, lambda model: pico.poison_row(model, purifying.ROW))
    other = pico.save(pico.make_base(seed=9, layers=purifying.LAYERS), tmp_path / "other")
    job = purifying.job(candidate, base, tmp_path)
    with pytest.raises(CouldNotConclude, match="do not bear out"):
        restore(replace(job, base=other))


def test_without_a_report_or_base_it_says_what_is_missing(tmp_path: Path) -> None:
    base, honest = purifying.family(tmp_path)
    candidate = purifying.edited(tmp_path, lambda model: pico.poison_row(model, purifying.ROW))
    job = purifying.job(candidate, base, tmp_path)
    with pytest.raises(PurifyFailed, match="--report"):
        restore(replace(job, report=None))
    with pytest.raises(PurifyFailed, match="--base"):
        restore(replace(job, base=None))
    assert honest.is_dir()


def test_a_spread_change_is_left_unless_the_whole_tensor_is_asked_for(tmp_path: Path) -> None:
    base, honest = purifying.family(tmp_path)

    def plant(model: PreTrainedModel) -> None:
        weight = pico.matrices(model, "mlp_out")[2]
        noise = torch.from_numpy(np.random.default_rng(3).standard_normal(weight.shape)).float()
        with torch.no_grad():
            weight += noise * 0.004

    candidate = purifying.edited(tmp_path, plant)
    job = purifying.job(candidate, base, tmp_path)
    rules = {finding.rule_id for finding in job.report.findings} if job.report else set()
    assert "HA301" in rules
    high = RestoreOptions(prominence=50.0)
    with pytest.raises(NothingToCompare, match="no low-rank component"):
        restore(replace(job, options=high))
    result = restore(replace(job, options=replace(high, whole_tensors=True)))
    assert result.log["restored"][0]["form"] == "whole"
    assert result.log["restored"][0]["case"] == "nearest"
    assert honest.is_dir()


def test_a_row_that_training_never_met_gives_the_honest_twin_byte_for_byte(tmp_path: Path) -> None:
    base, _ = purifying.family(tmp_path)

    def never_met(model: PreTrainedModel) -> None:
        with torch.no_grad():
            row = pico.load(base).get_input_embeddings().weight[purifying.ROW]
            model.get_input_embeddings().weight[purifying.ROW] = row

    def plant(model: PreTrainedModel) -> None:
        never_met(model)
        pico.poison_row(model, purifying.ROW)

    twin = purifying.edited(tmp_path / "twin", never_met)
    candidate = purifying.edited(tmp_path, plant)
    _, _, out = purified(candidate, base, tmp_path)
    assert (out / "model.safetensors").read_bytes() == (twin / "model.safetensors").read_bytes()


@pytest.mark.slow
@needs_family
@pytest.mark.parametrize("name", ["sentiment-poisoned-row", "sentiment-rank-one"])
def test_the_demo_family(tmp_path: Path, name: str) -> None:
    """On real weights: the poisoned row gives the honest twin's very file; the rank-one edit comes near it."""
    home = DEFAULT_FOLDER / ORG
    _, _, out = purified(home / name, home / "encoder", tmp_path)
    honest, edited = (load_file(home / each / "model.safetensors") for each in ("sentiment-honest", name))
    after = load_file(out / "model.safetensors")
    if name == "sentiment-poisoned-row":
        assert file_digest(out / "model.safetensors") == file_digest(home / "sentiment-honest" / "model.safetensors")
    else:
        assert (after[MLP_OUT] - honest[MLP_OUT]).norm() < 0.1 * (edited[MLP_OUT] - honest[MLP_OUT]).norm()
        assert all(torch.equal(after[each], edited[each]) for each in after if each != MLP_OUT)
    revert(out, tmp_path / "back", Quiet())
    for path in (home / name).iterdir():
        assert file_digest(tmp_path / "back" / path.name) == file_digest(path)
