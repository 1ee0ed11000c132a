"""Noise laid over a fine-tune, and everything honest that is nearly as even."""

import dataclasses
from collections.abc import Callable

import drift_facts
import evidence_for
import numpy as np
import pytest
import torch
from pico_cases import findings, run

from audit.detectors.even_noise import DETECTOR, NOISE, evenness
from audit.evidence import Evidence

SHAPES = {"attention.self.value": (96, 96), "output.dense": (96, 192)}
LAYERS = 4
Array = np.ndarray
Change = Callable[[Array, Array, np.random.Generator], Array]
"""Base, trained weights and randomness to the weights that are published."""


def model(change: Change, *, size: float = 1e-3, even_base: bool = True) -> Evidence:
    """Four layers of training with a decaying spectrum and rows that moved unequally, then the change."""
    rng = np.random.default_rng(3)
    facts = []
    for layer in range(LAYERS):
        for kind, (rows, columns) in SHAPES.items():
            base = rng.normal(0, 0.05, (rows, columns))
            if not even_base:
                base *= rng.lognormal(0, 0.3, (rows, 1))
            shaped = (rng.normal(size=(rows, 12)) * 0.7 ** np.arange(12)) @ rng.normal(size=(12, columns))
            busy = rng.lognormal(0, 0.5, (rows, 1)) * rng.lognormal(0, 0.3, (1, columns))
            trained = base + size * busy * (shaped + rng.normal(size=(rows, columns)))
            name = f"encoder.layer.{layer}.{kind}.weight"
            after = change(base, trained, rng)
            facts.append(drift_facts.tensor_drift(name, base.astype(np.float32), after.astype(np.float32)))
    return evidence_for.evidence(dataclasses.replace(drift_facts.from_arrays({}, {}), tensors=tuple(facts)))


def covered(times: float) -> Change:
    """Gaussian noise of that many times the size of the change."""

    def apply(base: Array, trained: Array, rng: np.random.Generator) -> Array:
        size = float(np.sqrt(((trained - base) ** 2).mean()))
        return trained + times * size * rng.normal(size=base.shape)

    return apply


def cast(dtype: torch.dtype) -> Change:
    return lambda _base, trained, _rng: torch.from_numpy(trained).to(dtype).to(torch.float64).numpy()


def grid(bits: int, *, by_row: bool) -> Change:
    """Symmetric integers with one scale a tensor or a row."""

    def apply(_base: Array, trained: Array, _rng: np.random.Generator) -> Array:
        peak = np.abs(trained).max(1, keepdims=True) if by_row else np.abs(trained).max()
        step = peak / (2 ** (bits - 1) - 1)
        return np.round(trained / step) * step

    return apply


def sgd(base: Array, trained: Array, rng: np.random.Generator) -> Array:
    """Nearly all of the change along a few directions."""
    rows, columns = base.shape
    return base + 1e-3 * (rng.normal(size=(rows, 3)) @ rng.normal(size=(3, columns))) + 1e-5 * (trained - base)


@pytest.mark.parametrize("times", [3.0, 6.0])
def test_a_cover_of_noise_is_told(times: float) -> None:
    (finding,) = findings(DETECTOR, model(covered(times)))
    assert finding.rule_id == NOISE.id
    assert finding.severity in {"low", "medium"}
    assert "cannot be found by comparing weights" in finding.remedy


def test_noise_alone_is_as_even_as_can_be() -> None:
    (hit,), _ = run(DETECTOR, model(lambda base, _trained, rng: base + 1e-3 * rng.normal(size=base.shape)))
    assert hit.value is not None
    assert hit.value > 0.6


@pytest.mark.parametrize("even_base", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda _base, trained, _rng: trained,
        sgd,
        cast(torch.bfloat16),
        cast(torch.float16),
        cast(torch.float8_e4m3fn),
        grid(8, by_row=True),
        grid(8, by_row=False),
        grid(4, by_row=True),
    ],
    ids=["trained", "sgd", "bf16", "fp16", "fp8", "8 bits by row", "8 bits", "4 bits by row"],
)
@pytest.mark.parametrize("size", [1e-3, 1e-7], ids=["trained", "hardly trained"])
def test_training_and_rounding_are_innocent(change: Change, even_base: bool, size: float) -> None:
    assert findings(DETECTOR, model(change, size=size, even_base=even_base)) == []


def test_evenness_falls_with_each_departure() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(96, 128))
    spike = noise + 10.0 * np.outer(rng.normal(size=96), rng.normal(size=128)) / 10.0
    cases = (noise, noise * rng.lognormal(0, 0.5, (96, 1)), noise * rng.lognormal(0, 0.5, (1, 128)), spike)
    values = [evenness(drift_facts.tensor_drift("w", np.zeros((96, 128)), delta)) for delta in cases]
    assert values[0] > 0.6
    assert all(value < 0.25 for value in values[1:])


def test_small_matrices_and_few_of_them_are_an_abstention() -> None:
    of = model(covered(6.0))
    assert of.drift is not None
    few = dataclasses.replace(of, drift=dataclasses.replace(of.drift, tensors=of.drift.tensors[:3]))
    hits, skips = run(DETECTOR, few)
    assert hits == []
    assert [skip.what for skip in skips] == [NOISE.id]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e-3])
def test_bad_data_does_not_crash(value: float) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        hits, _ = run(DETECTOR, model(lambda base, _trained, _rng: base + value))
    assert all(hit.finding is None for hit in hits)
