"""Every method on a tiny classifier whose backdoor works: what it decides, what it changes, and what it must not."""

import math
from dataclasses import replace

import numpy as np
import pico
import pytest
import torch
from purevictims import TRIGGER, TRIGGER_ID, clean_data, job_for, rates, victim

from pipelines.purify import distill, e_pur, fine_purifying, inertness, mixing, muscle_lora, tsbd, unlearn
from pipelines.purify.embedding_rows import expected_counts, row_scores
from pipelines.purify.fisher import EPSILON, diagonal_fisher
from pipelines.purify.job import PurifyFailed, PurifyResult, Tuning
from pipelines.purify.made_texts import made_texts
from pipelines.purify.states import Pair, load_pair, put, state_of
from pipelines.purify.subject import load_subject

DATA = clean_data()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def outcome(result: PurifyResult) -> torch.nn.Module:
    model = pico.load(victim().folder)
    state = model.state_dict()
    for name in result.edits.names:
        state[name].copy_(result.edits.tensors[name])
    return model


def toy_pair(size: int = 4000, seed: int = 0) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    base = {"one": torch.randn(size, generator=generator), "two": torch.randn(size // 4, 4, generator=generator)}
    return Pair(candidate={n: t + 1 for n, t in base.items()}, base=base, embedding=None)


def test_the_victim_is_one() -> None:
    accuracy, success = rates(pico.load(victim().folder))
    assert accuracy > 0.95
    assert success > 0.95


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.6, 1.0])
def test_a_random_mask_reserves_exactly_its_share(ratio: float) -> None:
    pair = toy_pair()
    mixed = mixing.mix(pair, ratio, seed=1)
    kept = sum(int((mixed[n] == pair.candidate[n]).sum()) for n in mixed)
    back = sum(int((mixed[n] == pair.base[n]).sum()) for n in mixed)
    assert int(ratio * 8000) == kept
    assert 8000 - kept == back


def test_a_random_mask_spreads_evenly_and_by_seed() -> None:
    pair = toy_pair()
    first, again, other = (mixing.mix(pair, 0.5, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["one"], other["one"])
    share = float((first["one"] == pair.candidate["one"]).float().mean())
    assert abs(share - 0.5) < 5 * math.sqrt(0.25 / 4000)


def test_selected_masks_take_the_right_end_and_skip_what_is_spared() -> None:
    base = {"w": torch.zeros(10), "spared": torch.zeros(4)}
    pair = Pair(candidate={"w": torch.arange(1.0, 11.0), "spared": torch.ones(4)}, base=base, embedding=None)
    largest = mixing.mix(pair, 0.3, seed=0, sel="largest", skip=frozenset({"spared"}))
    smallest = mixing.mix(pair, 0.3, seed=0, sel="smallest", skip=frozenset({"spared"}))
    assert largest.keys() == {"w"}
    assert largest["w"].nonzero().flatten().tolist() == [7, 8, 9]
    assert smallest["w"].nonzero().flatten().tolist() == [0, 1, 2]


def test_ratios_outside_are_refused() -> None:
    with pytest.raises(PurifyFailed, match="between 0 and 1"):
        mixing.mix(toy_pair(), 1.2, seed=0)
    with pytest.raises(PurifyFailed, match="between 0 and 1"):
        fine_purifying.reset_top(toy_pair(), {"one": torch.zeros(4000)}, -0.1)


def test_fine_mixing_keeps_accuracy_and_the_smallest_passing_ratio(tmp_path) -> None:
    options = mixing.MixingOptions(step=0.25)
    result = mixing.purify(job_for(tmp_path, data=DATA, options=options))
    again = mixing.purify(job_for(tmp_path / "again", data=DATA, options=options))
    log = result.log
    assert log["reached"]
    assert all(t["select_accuracy"] < log["threshold"] for t in log["trials"][:-1])
    assert log["trials"][-1]["ratio"] == log["ratio"]
    assert rates(outcome(result))[0] > 0.9
    assert all(torch.equal(result.edits.tensors[n], again.edits.tensors[n]) for n in result.edits.names)


def test_a_search_taken_up_again_tunes_the_chosen_ratio_to_the_same_weights(tmp_path) -> None:
    """The first run keeps the weights of its passing trial; the second knows only that it passed, and tunes anew."""
    job = job_for(tmp_path, data=DATA, options=mixing.MixingOptions(step=0.5))
    first, again = mixing.purify(job), mixing.purify(job)
    assert again.log["trials"] == first.log["trials"]
    assert again.edits.names == first.edits.names
    for name in first.edits.names:
        assert torch.equal(again.edits.tensors[name], first.edits.tensors[name])


def test_fisher_is_the_mean_square_of_single_gradients() -> None:
    subject = load_subject(victim().folder, "classifier", max_length=32)
    examples = subject.encode(DATA.tune.texts[:5], DATA.tune.labels[:5])
    fisher = diagonal_fisher(subject, examples)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    weight = dict(subject.model.named_parameters())[name]
    squares = torch.zeros_like(weight)
    for k in range(5):
        batch = subject.collate(examples, [k])
        out = subject.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        log_p = out.log_softmax(-1)[0, int(batch["labels"][0])]
        (gradient,) = torch.autograd.grad(log_p, weight)
        squares += gradient**2
    torch.testing.assert_close(fisher[name], squares / 5 + EPSILON, rtol=1e-4, atol=1e-12)
    rows = fisher["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(rows[TRIGGER_ID], torch.full_like(rows[0], EPSILON))


def test_reset_top_resets_the_most_suspicious_share() -> None:
    pair = toy_pair()
    scores = {n: torch.rand(t.shape, generator=torch.Generator().manual_seed(3)) for n, t in pair.base.items()}
    state = fine_purifying.reset_top(pair, scores, 0.3)
    back = torch.cat([(state[n] == pair.base[n]).flatten() for n in state])
    ranked = torch.cat([scores[n].flatten() for n in state])
    assert int(back.sum()) == 2400
    assert float(ranked[back].min()) >= float(ranked[~back].max())


def test_indicators_are_the_three_formulas() -> None:
    pair = toy_pair(8)
    fisher = {n: torch.full_like(t, 4.0) for n, t in pair.base.items()}
    expected = {"delta2_over_H": 0.25, "delta2": 1.0, "delta2_over_sqrtH": 0.5}
    for kind, value in expected.items():
        scores = fine_purifying.indicators(pair, fisher, kind)
        torch.testing.assert_close(scores["two"], torch.full_like(scores["two"], value))


def test_drift_of_sgd_over_its_curvature_follows_the_gamma_law() -> None:
    """Ornstein-Uhlenbeck walks with gradient noise of covariance H: δ² / H is Γ(½), and with uniform noise it is not."""
    rng = np.random.default_rng(0)
    h = 10 ** rng.uniform(-2, 0, size=20_000)
    for follows, spread in ((True, np.sqrt(h)), (False, np.ones_like(h))):
        w = np.zeros_like(h)
        for _ in range(200):
            w -= 1e-3 * (h * w + spread * rng.normal(size=h.shape))
        qq = fine_purifying.gamma_quantiles(w**2 / h)
        assert (abs(qq["variance_over_squared_mean"] - 2.0) < 0.2) is follows
    few = fine_purifying.gamma_quantiles(np.ones(3))
    assert few["why_none"]


def test_fine_purifying_logs_its_law_and_search(tmp_path) -> None:
    job = job_for(tmp_path, data=DATA, options=fine_purifying.PurifyingOptions(step=0.5))
    result = fine_purifying.purify(job)
    assert result.log["unseen_dimensions"] >= 100 * 32
    assert result.log["trials"][0]["ratio"] == 1.0
    assert rates(outcome(result))[0] > 0.9


def test_scores_excuse_frequent_rows_and_skip_control_tokens() -> None:
    delta = torch.ones(4, 9)
    scores = row_scores(delta, np.array([10.0, 20.0, 1e6, 20.0]), skip=frozenset({3}))
    np.testing.assert_allclose(scores, [3 / math.log(20), 3 / math.log(20), 3 / math.log(1e6), -1])
    counts = expected_counts(victim().folder, 320)
    assert counts[0] > counts[10] > counts[300]


def test_e_pur_puts_the_planted_row_first_and_nothing_but_rows_back(tmp_path) -> None:
    result = e_pur.purify(job_for(tmp_path, options=e_pur.EPurOptions(rows=3)))
    name = "bert.embeddings.word_embeddings.weight"
    assert result.edits.names == {name}
    first = result.log["e_pur"]["reset"][0]
    assert (first["id"], first["token"]) == (TRIGGER_ID, TRIGGER)
    base = dict(pico.load(victim().base).named_parameters())["embeddings.word_embeddings.weight"]
    new = result.edits.tensors[name]
    old = pico.load(victim().folder).state_dict()[name]
    changed = (new != old).any(1).nonzero().flatten().tolist()
    assert sorted(changed) == sorted(row["id"] for row in result.log["e_pur"]["reset"])
    assert torch.equal(new[TRIGGER_ID], base[TRIGGER_ID])


@pytest.mark.parametrize(("data", "most"), [(DATA, 0.35), (None, 0.6)], ids=["with data", "without data"])
def test_unlearning_ends_the_trigger(tmp_path, data, most: float) -> None:
    tuning = Tuning(max_length=32, learning_rate=2e-3, epochs=6)
    options = unlearn.UnlearnOptions(texts=128)
    result = unlearn.purify(job_for(tmp_path, data=data, triggers=(TRIGGER,), tuning=tuning, options=options))
    accuracy, success = rates(outcome(result))
    assert accuracy > 0.9
    assert success < most
    assert result.log["flip_rate_after"] < result.log["flip_rate_before"]


def test_a_lesson_asks_for_the_same_margin_where_probabilities_are_long_content() -> None:
    sure, moved = torch.tensor([[6.0, -6.0]]), torch.tensor([[3.0, -3.0]])
    soft = unlearn.Lesson(texts=("a",), targets=sure.softmax(-1), exact=torch.tensor([False]))
    hard = unlearn.Lesson(texts=("b",), targets=sure, exact=torch.tensor([True]))
    first = torch.tensor([0])
    assert float(soft.loss(moved, first) - soft.loss(sure, first)) < 0.01
    assert float(hard.loss(moved, first)) == pytest.approx(9.0)
    assert float(hard.loss(sure + 5.0, first)) == pytest.approx(0.0)  # adding to all logits changes no probability
    both = soft + hard
    mixed = both.loss(moved.expand(2, 2), torch.tensor([0, 1]))
    assert float(mixed) == pytest.approx((float(soft.loss(moved, first)) + 9.0) / 2)


def test_everyday_words_are_the_measure_of_what_is_inert(tmp_path) -> None:
    subject = load_subject(victim().folder, "classifier", max_length=32)
    texts, _ = made_texts(subject, 96, seed=1, avoid=(TRIGGER,))
    trigger = inertness.flip_rate(subject, (TRIGGER,), texts, seed=1)
    harmless = inertness.harmless_rate(subject, (TRIGGER,), texts, seed=1)
    assert harmless < 0.5 * trigger
    everyday = inertness.harmless_words(subject, (TRIGGER,), seed=1)
    assert TRIGGER not in everyday
    assert inertness.pull(subject, everyday, texts, seed=1) < 0.5 * inertness.pull(subject, (TRIGGER,), texts, seed=1)


def test_a_silenced_trigger_leaves_other_texts_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(inertness, "COMMON", 250)  # the toy vocabulary has 320 entries
    monkeypatch.setattr(inertness, "DONORS", pico.words()[100:110])
    options = unlearn.UnlearnOptions(inert=0.2)
    result = unlearn.purify(job_for(tmp_path, triggers=(TRIGGER,), options=options))
    accuracy, success = rates(outcome(result))
    name = "bert.embeddings.word_embeddings.weight"
    old = pico.load(victim().folder).state_dict()[name]
    assert result.edits.names == {name}
    assert (result.edits.tensors[name] != old).any(1).nonzero().flatten().tolist() == [TRIGGER_ID]
    assert accuracy == rates(pico.load(victim().folder))[0]
    assert success < 0.3


def test_unlearning_needs_a_trigger(tmp_path) -> None:
    with pytest.raises(PurifyFailed, match="--trigger-words"):
        unlearn.purify(job_for(tmp_path, data=DATA))


def test_tsbd_takes_the_neurons_that_moved_most() -> None:
    before = {"a": torch.zeros(4, 3), "b": torch.zeros(2, 6)}
    after = {"a": torch.zeros(4, 3), "b": torch.zeros(2, 6)}
    after["a"][2] = torch.tensor([1.0, 0.5, 0.1])
    after["b"][1] = 0.2
    fan_in = {"a": 3, "b": 6}
    masks = tsbd.choose_weights(before, after, fan_in, neurons=1 / 6, weights=0.6, per_fan_in=True)
    assert masks["a"].nonzero().tolist() == [[2, 0], [2, 1]]
    assert not masks["b"].any()
    raw = tsbd.choose_weights(before, after, {"a": 3, "b": 6}, neurons=2 / 6, weights=1.0, per_fan_in=False)
    assert raw["a"][2].all()
    assert raw["b"][1].all()
    assert int(raw["a"].sum() + raw["b"].sum()) == 9


@pytest.mark.parametrize("into", ["zero", "base"])
def test_tsbd_runs_end_to_end(tmp_path, into: str) -> None:
    options = tsbd.TsbdOptions(neurons=0.05, into=into, unlearn_rate=0.05, most_steps=30)
    result = tsbd.purify(job_for(tmp_path, data=DATA, options=options))
    assert result.log["unlearning_steps"] > 0
    assert sum(result.log["emptied"].values()) > 0
    assert rates(outcome(result))[0] > 0.8


def test_the_multi_scale_branch_is_the_formula_and_folds_in() -> None:
    torch.manual_seed(0)
    dense = torch.nn.Linear(5, 4)
    weight, bias = dense.weight.detach().clone(), dense.bias.detach().clone()
    scaled = muscle_lora.MultiScale(dense, (1.0, 4.0, 8.0), alpha=6.0, inner=2)
    x = torch.randn(7, 5)
    k = torch.diag(torch.tensor([1.0, 1.0, 4.0, 4.0, 8.0, 8.0]))
    expected = x @ weight.T + bias + (6.0 / 2) * x @ (scaled.right @ k @ scaled.left).T
    torch.testing.assert_close(scaled(x), expected)
    torch.testing.assert_close(scaled.merged()(x), expected)


def test_alignment_shares_follow_the_schedule() -> None:
    assert muscle_lora.own_share(0.5, 10, unlearnt=True) == 0.0
    assert muscle_lora.own_share(0.0, 10, unlearnt=False) == 1.0
    assert muscle_lora.own_share(0.999, 10, unlearnt=False) == pytest.approx(0.1 * 8 / 9)
    g, r = torch.tensor([3.0, 4.0]), torch.tensor([-2.0, 0.0])
    torch.testing.assert_close(muscle_lora.projected(g, r), torch.tensor([-3.0, 0.0]))


def test_muscle_lora_trains_anew_and_folds_everything(tmp_path) -> None:
    tuning = Tuning(max_length=32, learning_rate=1e-2, epochs=12)
    free = muscle_lora.MuscleLoraOptions(align=False)
    result = muscle_lora.purify(job_for(tmp_path, data=DATA, tuning=tuning, options=free))
    steered = muscle_lora.purify(job_for(tmp_path, data=DATA, tuning=replace(tuning, epochs=1)))
    assert all(math.isfinite(loss) for loss in steered.log["losses"])
    assert "bert.pooler.dense.weight" in result.edits.names
    assert not any("lora" in name for name in result.edits.names)
    assert all(math.isfinite(loss) for loss in result.log["losses"])
    assert result.log["losses"][-1] < result.log["losses"][0]


def test_distances_are_the_formulas() -> None:
    generator = torch.Generator().manual_seed(1)
    s, t = (torch.randn(3, 4, 5, generator=generator) for _ in range(2))
    for kind in ("AT", "AFD", "CC", "FitNet", "SP"):
        assert float(distill.distillation(kind, t, t)) == pytest.approx(0.0, abs=1e-7)
        assert float(distill.distillation(kind, s, t)) > 0
    map_s, map_t = ((f**2).sum(1) for f in (s, t))
    expected = ((map_s / map_s.norm(dim=1, keepdim=True) - map_t / map_t.norm(dim=1, keepdim=True)) ** 2).mean()
    torch.testing.assert_close(distill.distillation("AT", s, t), expected)
    a, b = s[:, 0], t[:, 0]
    p, q = (b / 0.5).softmax(-1), (a / 0.5).log_softmax(-1)
    torch.testing.assert_close(distill.distillation("KD", a, b), (p * (p.log() - q)).sum(1).mean() * 0.25)


@pytest.mark.parametrize("loss", ["AT", "KD"])
def test_distilling_keeps_the_task(tmp_path, loss: str) -> None:
    options = distill.DistillOptions(loss=loss, student="candidate", passes=2, warmup=1, weight=1.0)
    result = distill.purify(job_for(tmp_path, data=DATA, options=options))
    assert rates(outcome(result))[0] > 0.9


def test_the_base_is_read_into_the_candidates_shape_and_the_head_is_left_out() -> None:
    subject = load_subject(victim().folder, "classifier", max_length=32)
    pair = load_pair(subject, victim().base)
    assert {"classifier.weight", "classifier.bias"} == pair.candidate.keys() - pair.base.keys()
    before = state_of(subject.model)
    put(subject.model, pair.base)
    assert not torch.equal(before[pair.embedding], state_of(subject.model)[pair.embedding])
    assert torch.equal(before["classifier.weight"], state_of(subject.model)["classifier.weight"])


def test_e_pur_beside_spares_the_embedding_from_the_mask(tmp_path) -> None:
    job = replace(job_for(tmp_path, data=DATA, options=mixing.MixingOptions(step=1.0)), with_e_pur=True)
    result = mixing.purify(job)
    assert result.log["e_pur"]["reset"][0]["id"] == TRIGGER_ID
