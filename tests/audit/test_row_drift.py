"""Frequency-adjusted row drift."""

import drift_facts
import evidence_for
import numpy as np
import pytest

from audit.row_drift import RowDrift, adjusted_row_drift
from scanner.records import TokenTable

ROWS, COLS = 3000, 48


def base() -> np.ndarray:
    """A token table."""
    rng = np.random.default_rng(0)
    return (rng.normal(0, 0.05, (ROWS, COLS)) * np.exp(rng.normal(0, 0.2, (ROWS, 1)))).astype(np.float32)


def trained(*, touched: float = 0.5, scale: float = 0.02) -> np.ndarray:
    """A change that follows a law of rank, and the rows it leaves alone."""
    rng = np.random.default_rng(1)
    size = scale * (1.0 + np.arange(ROWS) / 50.0) ** -0.4 * np.exp(rng.normal(0, 0.25, ROWS))
    delta = rng.normal(0, COLS**-0.5, (ROWS, COLS)) * size[:, None]
    delta[rng.random(ROWS) > touched] = 0.0
    return delta


def step_by_step(rows: np.ndarray, steps: int) -> np.ndarray:
    """The rows after slight decay, rounded to float32 at every step."""
    for _ in range(steps):
        rows = rows - np.float32(1.2e-7) * rows
    return rows


def adjusted(after: np.ndarray, tokens: TokenTable | None = None, *, least: int = 200) -> RowDrift:
    """The row drift of a changed table."""
    facts = drift_facts.tensor_drift("wte.weight", base(), after.astype(np.float32), spectra=False)
    table = tokens or evidence_for.token_table(tuple(str(i) for i in range(ROWS)))
    return adjusted_row_drift(facts, table, least=least)


def test_z_is_standard_for_rows_that_follow_the_law() -> None:
    z = adjusted(base() + trained()).z
    judged = z[np.isfinite(z)]
    assert len(judged) == int((np.linalg.norm(trained(), axis=1) > 0).sum())
    assert np.median(judged) == pytest.approx(0.0, abs=1e-9)
    assert np.quantile(judged, 0.84) == pytest.approx(1.0, abs=0.15)
    assert abs(float(np.corrcoef(judged, np.flatnonzero(np.isfinite(z)))[0, 1])) < 0.1


def test_scale_changes_no_z() -> None:
    one, other = adjusted(base() + trained()), adjusted(base().astype(np.float64) + 7 * trained())
    np.testing.assert_allclose(one.z, other.z, atol=0.02)


@pytest.mark.parametrize(
    ("after", "decay"),
    [
        (lambda b, d: b + d, 0.0),
        (lambda b, d: (b + d).astype(np.float16), 0.0),
        (lambda b, d: b * 0.99 + d, -0.01),
        (lambda b, d: (b * (1 - 3e-7)).astype(np.float32) + d, -3e-7),
        (lambda b, d: step_by_step(b, 150) + d, -1.8e-5),
        (lambda b, d: np.round((b + d) / 2e-3) * 2e-3, 0.0),
    ],
    ids=["exact", "half precision", "decay", "decay near rounding", "decay step by step", "8-bit steps"],
)
def test_untouched_rows_are_recognised(after, decay) -> None:
    found = adjusted(after(base(), trained(scale=0.1)))
    truth = np.linalg.norm(trained(), axis=1) > 0
    assert float((found.touched == truth).mean()) > 0.98
    assert found.decay == pytest.approx(decay, rel=5e-2, abs=1e-9)


def test_a_row_scaled_on_its_own_is_not_taken_for_decay() -> None:
    after = base() * 0.99
    after[17] = base()[17] * 3.0
    found = adjusted(after)
    assert np.flatnonzero(found.touched).tolist() == [17]
    assert found.judged == 0


def test_dense_training_has_no_still_mode() -> None:
    found = adjusted(base() + trained(touched=1.0))
    assert found.judged == ROWS


def test_rows_trained_alike_but_far_are_no_still_mode() -> None:
    rng = np.random.default_rng(3)
    found = adjusted(base() + rng.normal(0, 0.05, (ROWS, COLS)))
    assert found.judged == ROWS


def test_too_few_rows_are_not_judged_but_have_prominence() -> None:
    after = base().astype(np.float16).astype(np.float32)
    after[5] += 1.0
    found = adjusted(after)
    assert found.judged == 0
    assert np.argmax(found.prominence) == 5
    assert found.prominence[5] > 100


def test_rows_beyond_the_vocabulary_count_as_rarest() -> None:
    short = evidence_for.token_table(tuple(str(i) for i in range(ROWS // 2)))
    found = adjusted(base() + trained(touched=1.0), short)
    assert found.judged == ROWS
    assert found.adjusted


@pytest.mark.parametrize("frequency", [None, np.full(ROWS, -np.inf), np.full(ROWS, -3.0)])
def test_useless_frequencies_leave_raw_drift(frequency: np.ndarray | None) -> None:
    table = TokenTable(
        kind="unknown",
        texts=("a",) * ROWS,
        expected_log_frequency=frequency,
        special=np.zeros(ROWS, dtype=bool),
    )
    found = adjusted(base() + trained(touched=1.0), table)
    assert found.judged == ROWS
    assert np.argmax(found.z) == np.argmax(found.drift)


def test_equal_drift_gives_zero() -> None:
    delta = np.zeros((ROWS, COLS))
    delta[:, 0] = 0.25
    z = adjusted(base() + delta).z
    assert not np.any(np.abs(z[np.isfinite(z)]) > 50)


def test_no_change_judges_nothing() -> None:
    found = adjusted(base())
    assert found.judged == 0
    assert not found.touched.any()
    assert found.prominence.max() == 0.0
