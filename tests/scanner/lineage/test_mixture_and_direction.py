"""Merges written as sums of changes, and which of two models came first."""

import ml_dtypes
import numpy as np
import pytest
from descents import drifted, measured, random_body, write
from weightfolders import facts_of

from scanner.alignment import align
from scanner.lineage.direction import check_direction
from scanner.lineage.mixture import fit_mixture, mixture_check, read_planned
from scanner.lineage.sampling import plan_samples, read_samples
from scanner.weights.opening import open_source

BASE = random_body(1)
ONE, TWO = drifted(BASE, seed=11), drifted(BASE, seed=12)


def fitted(tmp_path, candidate, others=(ONE, TWO)):
    folders = [write(tmp_path / str(i), t) for i, t in enumerate((candidate, BASE, *others))]
    ours, base, *rest = (open_source(facts_of(folder), None) for folder in folders)
    pairs = align(ours.table, base.table).pairs
    planned = plan_samples(pairs, rows_per_tensor=32, seed=1)
    own = {pair.candidate.name: pair for pair in pairs}
    rows = [read_planned(planned, source, pairs=own) for source in (base, *rest)]
    return fit_mixture(rows[0], rows[1:], read_planned(planned, ours))


def mixed(*shares):
    return {
        n: (v + sum(s * (m[n] - v) for s, m in zip(shares, (ONE, TWO), strict=True))).astype(np.float32)
        for n, v in BASE.items()
    }


def test_a_merge_gives_its_shares(tmp_path):
    found = fitted(tmp_path, mixed(0.6, 0.3))
    assert found.coefficients == pytest.approx((0.6, 0.3), abs=1e-3)
    assert found.residual < 1e-6
    assert found.merged
    check = mixture_check(found, ("a", "b"))
    assert check.outcome == "passed"
    assert "a 0.60, b 0.30" in check.note


def test_a_fine_tune_is_no_mixture_of_strangers(tmp_path):
    found = fitted(tmp_path, drifted(BASE, seed=13))
    assert found.residual > 0.9
    assert not found.merged


def test_a_child_of_one_is_that_one_alone(tmp_path):
    found = fitted(tmp_path, drifted(ONE, size=0.0005, seed=14))
    assert found.coefficients == pytest.approx((1.0, 0.0), abs=0.1)
    assert not found.merged


def test_nothing_moved_is_no_fit(tmp_path):
    assert fitted(tmp_path, BASE) is None


def direction(tmp_path, base, candidate):
    folders = [write(tmp_path / side, t) for side, t in (("base", base), ("mine", candidate))]
    theirs, ours = (open_source(facts_of(folder), None) for folder in folders)
    planned = plan_samples(align(ours.table, theirs.table).pairs, rows_per_tensor=64, seed=1)
    return check_direction(list(read_samples(planned, theirs, ours)))


def decayed():
    """Token rows from 20 on saw no gradient: AdamW shrank them by one factor."""
    mine = drifted(BASE)
    mine["model.embed_tokens.weight"][20:] = (0.9995 * BASE["model.embed_tokens.weight"][20:]).astype(np.float32)
    return mine


def test_decay_says_who_came_later(tmp_path):
    check = direction(tmp_path, BASE, decayed())
    assert check.outcome == "passed"
    assert measured(check)["common_factor"] == pytest.approx(0.9995, abs=1e-6)
    assert direction(tmp_path / "back", decayed(), BASE).outcome == "failed"


def test_rounding_says_who_came_later(tmp_path):
    cast = {n: v.astype(ml_dtypes.bfloat16) for n, v in BASE.items()}
    assert direction(tmp_path, BASE, cast).outcome == "passed"
    assert direction(tmp_path / "back", cast, BASE).outcome == "failed"


def test_ordinary_training_does_not_say(tmp_path):
    check = direction(tmp_path, BASE, drifted(BASE))
    assert check.outcome == "not_run"
    assert "kurtosis_difference" in measured(check)
