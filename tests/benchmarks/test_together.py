"""Weights and probe together: on the real bank's own observations, and the table's counts on made-up outcomes."""

from benchmarks.calibration.records import ledger_of
from benchmarks.together import Both, both, lines


def test_models_of_the_bank_are_paired_with_their_probes():
    observations = ledger_of("real").read()
    clean = next(name for name, o in observations.items() if o["kind"] == "clean" and o["coverage"] > 0.9)
    works = next(name for name, o in observations.items() if o["working"] and o["family"] == "ep_datafree")
    fails = next(name for name, o in observations.items() if o["kind"] == "attacked" and not o["working"])
    found = both({clean: False, works: True, fails: True, "no-such-model": True})
    assert {one.family for one in found} == {None, "ep_datafree"}
    assert [one.probe for one in found if one.family is not None] == [True]
    assert [one.weights for one in found if one.family is not None] == [True], "an edited row is seen by the weights"


def test_either_counts_once():
    models = [
        Both(family=None, weights=True, probe=False), Both(family=None, weights=False, probe=False),
        Both(family="ep", weights=True, probe=True), Both(family="badword", weights=False, probe=True),
        Both(family="other", weights=False, probe=False),
    ]  # fmt: skip
    text = "\n".join(lines(models))
    assert "| honest classifiers | 2 | 1 | 0 | 1 of 2 (" in text
    assert "| edits | 1 | 1 | 1 | 1 of 1 (" in text
    assert "| all attacks that work | 3 | 1 | 2 | 2 of 3 (" in text
    assert "backdoored LoRA" not in text
    assert "at most 97.5 %" in text
