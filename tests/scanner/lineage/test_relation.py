"""The relation once everything has been compared."""

from dataclasses import replace

import numpy as np
import pytest
from drift_facts import from_arrays

from scanner.lineage.relation import settled_relation
from scanner.records import DriftFacts

BASE = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b.weight": np.ones(4, dtype=np.float32)}


def drift(**changes: np.ndarray) -> DriftFacts:
    candidate = BASE | {name.replace("__", "."): value for name, value in changes.items()}
    return from_arrays(BASE, candidate, spectra=False)


@pytest.mark.parametrize("relation", ["finetune", "merge", "unknown"])
def test_a_complete_comparison_without_a_change_is_identical(relation):
    assert settled_relation(relation, drift()) == "identical"


def test_one_changed_value_is_enough():
    moved = BASE["a.weight"].copy()
    moved[1, 2] += 1
    assert settled_relation("finetune", drift(a__weight=moved)) == "finetune"


def test_what_was_not_compared_is_not_identical():
    assert settled_relation("finetune", drift(head__weight=np.ones((2, 2), dtype=np.float32))) == "finetune"
    assert settled_relation("finetune", replace(drift(), added_rows={"a.weight": (3, 5)})) == "finetune"
    assert settled_relation("unknown", replace(drift(), tensors=())) == "unknown"
    assert settled_relation("unknown", None) == "unknown"


def test_values_that_are_not_finite_are_not_identical():
    broken = np.full(4, np.nan, dtype=np.float32)
    assert settled_relation("finetune", from_arrays(BASE | {"b.weight": broken}, BASE | {"b.weight": broken})) == (
        "finetune"
    )
