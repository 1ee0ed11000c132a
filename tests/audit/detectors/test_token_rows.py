"""Token rows: planted, clean, innocent, and bad data."""

import dataclasses

import drift_facts
import evidence_for
import numpy as np
import pico
import pytest
from pico_cases import Arrays, evidence, findings, freeze, half_precision, run

from audit.detectors.token_rows import DETECTOR
from audit.evidence import Evidence

ROW = 47
ROWS, COLS = 4000, 64


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("keep_norm", [True, False])
def test_a_poisoned_row_is_named_with_its_token(kind: pico.Kind, keep_norm: bool) -> None:
    of = evidence(lambda m: pico.poison_row(m, ROW, keep_norm=keep_norm), kind=kind)
    (finding,) = findings(DETECTOR, of)
    assert finding.rule_id == "HA201"
    assert finding.severity == "high"
    assert finding.locations[0].rows[0] == (ROW, ROW + 1)
    assert of.tokens is not None
    assert finding.locations[0].tokens[0].text == of.tokens.texts[ROW]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_an_honest_fine_tune_gives_no_finding_but_a_score(kind: pico.Kind) -> None:
    hits, _ = run(DETECTOR, evidence(kind=kind))
    assert [h.finding for h in hits] == [None]
    assert 0 < hits[0].score < 0.5


def test_a_round_trip_through_half_precision_is_innocent() -> None:
    assert findings(DETECTOR, evidence(change=half_precision)) == []


def test_a_row_poisoned_before_a_round_trip_is_found() -> None:
    of = evidence(lambda m: pico.poison_row(m, ROW), change=half_precision)
    (finding,) = findings(DETECTOR, of)
    assert finding.locations[0].rows[0] == (ROW, ROW + 1)


def test_one_row_on_a_frozen_table_is_an_exact_fact() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        freeze("word_embeddings")(base, candidate)
        candidate["embeddings.word_embeddings.weight"][ROW] *= -1.0

    (finding,) = findings(DETECTOR, evidence(change=change))
    assert (finding.rule_id, finding.severity, finding.confidence) == ("HA202", "high", "exact")
    assert finding.locations[0].rows == ((ROW, ROW + 1),)
    assert "bit-identical" in finding.explanation


def test_training_reserved_tokens_alone_is_innocent() -> None:
    def change(base: Arrays, candidate: Arrays) -> None:
        freeze("word_embeddings")(base, candidate)
        candidate["embeddings.word_embeddings.weight"][1:4] += 0.5

    of = evidence(change=change)
    hits, _ = run(DETECTOR, of)
    (hit,) = hits
    assert hit.score == 0.0
    assert hit.finding is not None
    assert hit.finding.severity == "low"


def test_a_frozen_table_is_an_abstention() -> None:
    hits, skips = run(DETECTOR, evidence(change=freeze("word_embeddings")))
    assert hits == []
    assert [s.what for s in skips] == ["HA201"]


def test_no_token_table_is_an_abstention() -> None:
    of = evidence()
    assert of.drift is not None
    tensors = tuple(t for t in of.drift.tensors if t.spec.role != "embedding")
    hits, skips = run(DETECTOR, dataclasses.replace(of, drift=dataclasses.replace(of.drift, tensors=tensors)))
    assert (hits, [s.what for s in skips]) == ([], ["HA201"])


def made(
    delta: np.ndarray, *, tokens: int | None = ROWS, special: int = 0, ordered: bool = True, headings: bool = False
) -> Evidence:
    """Evidence of one token table with a given change."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.05, (ROWS, COLS)).astype(np.float32)
    facts = drift_facts.tensor_drift(
        "embeddings.word_embeddings.weight", base, (base + delta).astype(np.float32), spectra=headings
    )
    drift = dataclasses.replace(drift_facts.from_arrays({}, {}), tensors=(facts,))
    table = (
        None
        if tokens is None
        else evidence_for.token_table(tuple(f"w{i}" for i in range(tokens)), special=special, ordered=ordered)
    )
    return evidence_for.evidence(drift, tokens=table)


def zipf_delta(*, touched: float = 0.4) -> np.ndarray:
    """A change whose rows shrink with rank, a part of them untouched."""
    rng = np.random.default_rng(1)
    size = 0.02 / np.sqrt(1.0 + np.arange(ROWS) / 100.0) * np.exp(rng.normal(0, 0.3, ROWS))
    delta = rng.normal(0, 1 / np.sqrt(COLS), (ROWS, COLS)) * size[:, None]
    delta[rng.random(ROWS) > touched] = 0.0
    return delta


@pytest.mark.parametrize(("share", "rules"), [(0.004, []), (0.04, ["HA202"])])
def test_few_rows_that_hardly_moved_are_what_rounding_left(share: float, rules: list[str]) -> None:
    delta = np.zeros((ROWS, COLS))
    delta[100:105] = np.random.default_rng(2).normal(0, share * 0.05, (5, COLS))
    assert [finding.rule_id for finding in findings(DETECTOR, made(delta))] == rules


@pytest.mark.parametrize(("between", "rules"), [(59, []), (4, ["HA202"])])
def test_a_training_that_rounding_half_hides_is_no_edit(between: int, rules: list[str]) -> None:
    """Every row is off by rounding, some stand far above it; whether few changed is told by those between."""
    rng = np.random.default_rng(3)
    size = np.full(ROWS, 0.0016)
    size[200 : 200 + between] *= np.geomspace(1.8, 7.0, between)
    size[1000:1020] *= np.geomspace(9.0, 30.0, 20)
    delta = rng.normal(0, 0.05, (ROWS, COLS)) * size[:, None]
    assert [finding.rule_id for finding in findings(DETECTOR, made(delta))] == rules


def test_frequency_is_taken_into_account() -> None:
    """A rare row that moves like a frequent one is no outlier in raw drift, and is one for its rank."""
    delta = zipf_delta()
    frequent = np.linalg.norm(delta[:200], axis=1)
    delta[3900] = 2.5 * np.median(frequent[frequent > 0]) / np.sqrt(COLS)
    assert np.linalg.norm(delta[3900]) < frequent.max() * 2
    (finding,) = findings(DETECTOR, made(delta))
    assert finding.locations[0].rows[0] == (3900, 3901)
    assert finding.locations[0].tokens[0].text == "w3900"
    assert findings(DETECTOR, made(delta, ordered=False)) == []


def test_without_a_tokenizer_the_row_is_named_by_its_index() -> None:
    delta = zipf_delta()
    delta[3900] = 1.0
    (finding,) = findings(DETECTOR, made(delta, tokens=None))
    assert finding.locations[0].tokens[0].id == 3900
    assert finding.locations[0].tokens[0].text == ""
    assert "frequencies were unknown" in finding.explanation


@pytest.mark.parametrize("tokens", [100, 3950, 9000])
def test_a_tokenizer_of_another_length_does_no_harm(tokens: int) -> None:
    delta = zipf_delta()
    delta[3990] = 1.0
    (finding,) = findings(DETECTOR, made(delta, tokens=tokens))
    assert finding.locations[0].rows[0] == (3990, 3991)


def test_weight_decay_on_untouched_rows_does_not_drown_the_row() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.05, (ROWS, COLS)).astype(np.float32)
    delta = zipf_delta() - 0.003 * base
    assert findings(DETECTOR, made(delta)) == []
    delta[3900] = 0.1
    (finding,) = findings(DETECTOR, made(delta))
    assert finding.locations[0].rows[0] == (3900, 3901)


def test_special_tokens_are_not_judged() -> None:
    delta = zipf_delta()
    delta[2] = 1.0
    assert findings(DETECTOR, made(delta, special=5)) == []


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_constant_changes_do_not_crash(value: float) -> None:
    with np.errstate(invalid="ignore"):
        assert findings(DETECTOR, made(np.full((ROWS, COLS), value))) == []


def test_several_triggers_are_named_together() -> None:
    """Each of the five is within reach of the tail; five at once are not."""
    rng = np.random.default_rng(2)
    delta = zipf_delta(touched=1.0)
    triggers = [3000, 3100, 3200, 3300, 3400]
    for row in triggers:
        typical = np.median(np.linalg.norm(delta[row - 50 : row + 50], axis=1))
        delta[row] = rng.normal(0, 1, COLS) * 5.5 * typical / np.sqrt(COLS)
    (finding,) = findings(DETECTOR, made(delta))
    assert {rows[0] for rows in finding.locations[0].rows} == set(triggers)
    assert finding.measurements[1].value == 5


def test_more_rows_than_a_tail_holds_are_capped() -> None:
    delta = zipf_delta(touched=1.0)
    delta[3000:3030] = 1.0
    (finding,) = findings(DETECTOR, made(delta))
    assert len(finding.locations[0].rows) == 20


@pytest.mark.parametrize(("alike", "least", "most"), [(True, 0.95, 1.0), (False, -0.3, 0.3)])
def test_several_rows_that_went_the_same_way_are_told_so(alike: bool, least: float, most: float) -> None:
    rng = np.random.default_rng(21)
    delta = zipf_delta()
    shared = rng.normal(size=delta.shape[1])
    for row in range(40, 160, 20):
        way = shared if alike else rng.normal(size=delta.shape[1])
        delta[row] = 40.0 * np.linalg.norm(delta[10]) * way / np.linalg.norm(way)
    (finding,) = findings(DETECTOR, made(delta, headings=True))
    assert len(finding.locations[0].rows) >= 5
    value = next(m.value for m in finding.measurements if m.name == "mean cosine between the changes of these rows")
    assert value is not None
    assert least <= value <= most
