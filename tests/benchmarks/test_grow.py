"""A bank that is observed and not kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from zoo_pico import make_tier

from audit.traits import TRAITS
from benchmarks.calibration.fit import FLOORS
from benchmarks.calibration.grow import CYCLE, grow, order
from benchmarks.calibration.records import Ledger
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.making import LEAD
from benchmarks.zoo.recipes import LATER_FROM


def test_ten_honest_to_six_attacked_after_the_lead() -> None:
    made = list(order(LEAD + 2 * len(CYCLE)))
    assert made[:LEAD] == [("clean", n) for n in range(LEAD)]
    rest = made[LEAD:]
    assert sum(kind == "clean" for kind, _ in rest) == 20
    assert sum(index >= LATER_FROM for _, index in rest) == 4
    assert len(set(made)) == len(made)


def test_every_attacked_model_finds_all_parents_that_it_may_have() -> None:
    made = list(order(800))
    for place, (kind, index) in enumerate(made):
        if kind == "attacked" and index < LATER_FROM:
            before = {n for k, n in made[:place] if k == "clean"}
            assert set(range(LEAD + index)) <= before


def test_a_longer_bank_begins_with_a_shorter_one() -> None:
    assert list(order(300))[:120] == list(order(120))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_models_are_observed_and_go_but_parents_stay(tmp_path: Path) -> None:
    tier = replace(make_tier(tmp_path), rate_factor=6.0, step_factor=0.2)
    bank, ledger = Bank(tmp_path / "bank"), Ledger(tmp_path / "pico.jsonl")
    lines = list(grow(tier, bank, ledger, 5))
    seen = ledger.read()
    assert len(lines) == len(seen) == 5, lines
    assert set(bank.ids()) == {name for name, o in seen.items() if o["parent"]}
    for observation in seen.values():
        assert set(observation["values"]) <= set(FLOORS) | {"HA503"}
        assert observation["traits"] is None or len(observation["traits"]) == len(TRAITS)
        assert set(observation["theory"]) == {"spike", "rows"}
        assert observation["broken"] == []
    # What has a line is not made again, wherever the weights are.
    assert list(grow(tier, bank, ledger, 5)) == []
    before = ledger.path.read_bytes()
    assert list(grow(tier, Bank(tmp_path / "elsewhere"), ledger, 5)) == []
    assert ledger.path.read_bytes() == before
