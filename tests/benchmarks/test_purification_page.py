"""The purification benchmark: which cells a part has, how outcomes are paired, and what the tables say of them."""

import argparse

import pytest

from benchmarks import purification
from benchmarks.purifying import page
from benchmarks.purifying.cells import Cell, Outcome, paired


def part(**given: object) -> list[Cell]:
    usual: dict[str, object] = {
        "reduced": False, "zoo": False, "tasks": None, "families": None, "seeds": None, "methods": None, "sizes": None,
        "plain": False,
    }  # fmt: skip
    return purification.wanted(argparse.Namespace(**(usual | given)))


def line(victim: str, method: str, samples: int, **outcome: object) -> dict[str, object]:
    """1000 texts, 500 with a trigger; the victim 88 % right, its twin called the target in 10 %."""
    usual: dict[str, object] = {
        "key": f"sst2-{victim}-s0/{method}/{samples}", "task": "sst2", "family": victim, "seed": 0, "method": method,
        "samples": samples, "e_pur": False, "n_acc": 1000, "n_asr": 500,
        "before": {"acc": 0.88, "asr": 1.0, "floor": 0.12}, "clean": {"acc": 0.89, "asr": 0.10, "floor": 0.11},
        "after": {"acc": 0.87, "asr": 0.14, "floor": 0.12}, "excess": 0.04, "acc_loss": 0.01,
        "excess_pairs": [40, 30, 10, 450], "loss_pairs": [860, 20, 10, 110], "cpu": 30.0, "cpu_in_all": 40.0,
    }  # fmt: skip
    return usual | outcome


def test_the_reduced_benchmark_is_a_part_of_the_whole() -> None:
    whole, reduced = {cell.key for cell in part()}, {cell.key for cell in part(reduced=True)}
    assert reduced < whole
    assert {cell.samples for cell in part(reduced=True)} == {0, 64}
    assert len(whole) == len(part())


def test_a_part_is_chosen_by_every_filter() -> None:
    chosen = part(tasks=["agnews"], families=["ep"], seeds=[1], methods=["auto"], sizes=[0, 32])
    assert [cell.key for cell in chosen] == ["agnews-ep-s1/auto/0", "agnews-ep-s1/auto/32"]
    assert all(not cell.e_pur for cell in part(plain=True))
    assert len(part(plain=True)) < len(part())


def test_outcomes_are_paired_text_by_text() -> None:
    outcome = Outcome(right="1101", floor="00", hit="10")
    assert outcome.rates() == {"acc": 0.75, "floor": 0.0, "asr": 0.5}
    assert paired("1101", "1010") == [1, 2, 1, 0]


def test_the_mean_over_victims_has_the_interval_of_paired_shares() -> None:
    kept = [line("ep", "auto", 64), line("badword", "auto", 64, excess=0.0, excess_pairs=[50, 0, 0, 450])]
    row = page.pooled(kept).splitlines()[-1]
    # Of one victim 30 and 10 of 500 disagree: variance (40 − 20²/500) / 500², of the other none; halved for the mean.
    half = 1.96 * ((40 - 400 / 500) / 500**2) ** 0.5 / 2
    assert f"2.0 ({100 * (0.02 - half):.1f} to {100 * (0.02 + half):.1f})" in row
    assert "| 2 |" in row
    assert row.endswith("| 2, 2.0 | 30 |")


def test_a_cell_that_did_nothing_is_counted_and_not_averaged() -> None:
    kept = [line("ep", "restore", 0), line("badword", "restore", 0, after=None, why="nothing flagged")]
    assert "1 of 2" in page.pooled(kept)
    assert "nothing done" in page.by_victim(kept)[0]


def test_what_loses_more_than_a_point_is_not_compared_at_matched_accuracy() -> None:
    kept = [line("ep", "tsbd", 64, acc_loss=0.05), line("badword", "tsbd", 64)]
    assert "| 1, 4.0 |" in page.pooled(kept)


@pytest.mark.parametrize(("training", "told"), [(0.0, "some 2 hours"), (7200.0, "some 4 hours")])
def test_hours_follow_from_the_seconds_of_each_method(training: float, told: str) -> None:
    kept = [line("ep", "auto", 64, cpu_in_all=3600.0), line("ep", "none", 0, cpu_in_all=0.0)]
    todo = [Cell(task="sst2", family=f, seed=0, method="auto", samples=64) for f in ("ep", "badword", "lwp")]
    assert told in page.hours(kept, todo, training)
    assert "1 of 3 cells" in page.hours(kept, todo, training)
