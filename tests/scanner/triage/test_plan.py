"""The plan of what to read: within the budget, every row with the same chance, siblings alike."""

import numpy as np
import pytest
import tables

from scanner.alignment import align
from scanner.records import Alignment, FileEntry
from scanner.triage.identity import identical_pairs
from scanner.triage.plan import BEYOND, IDENTICAL, LEAST_ROWS, more_rows, pair_bytes, plan_reading

LAYERS = 12
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    shapes = {EMBEDDING: (4096, 256)}
    for layer in range(LAYERS):
        shapes |= {
            f"model.layers.{layer}.self_attn.q_proj.weight": (256, 256),
            f"model.layers.{layer}.mlp.down_proj.weight": (256, 1024),
            f"model.layers.{layer}.input_layernorm.weight": (256,),
        }
    table = tables.table_of(shapes)
    return align(table, table)


@pytest.mark.parametrize("budget", [600_000, 2_000_000, 5_000_000, 20_000_000])
def test_the_plan_stays_within_the_budget_and_uses_most_of_it(alignment: Alignment, budget: int) -> None:
    plan = plan_reading(alignment, budget_bytes=budget, seed=1)
    assert 0.7 * budget <= plan.planned_bytes <= budget
    assert plan.planned_bytes == sum(pair_bytes(pair) for pair in plan.alignment.pairs)
    named = {pair.name for pair in plan.alignment.pairs} | {s.what for s in plan.alignment.skips if s.why == BEYOND}
    assert named == {pair.name for pair in alignment.pairs}, "what is not read is a skip"
    for pair in plan.alignment.pairs:
        ends = [edge for run in pair.runs for edge in run]
        assert ends == sorted(set(ends)), "runs are ascending and apart"
        assert all(pair.rows[0] <= edge <= pair.rows[1] for edge in ends)


def test_a_budget_for_everything_leaves_nothing_out(alignment: Alignment) -> None:
    plan = plan_reading(alignment, budget_bytes=sum(map(pair_bytes, alignment.pairs)), seed=1)
    assert plan.complete
    assert plan.alignment.pairs == alignment.pairs


def test_vectors_are_read_whole_and_siblings_give_as_many_rows(alignment: Alignment) -> None:
    plan = plan_reading(alignment, budget_bytes=5_000_000, seed=2)
    pairs = {pair.name: pair for pair in plan.alignment.pairs}
    assert all(not pair.sampled for name, pair in pairs.items() if "layernorm" in name)
    for kind in ("self_attn.q_proj", "mlp.down_proj"):
        rows = [pair.compared_rows for name, pair in pairs.items() if kind in name]
        assert len(rows) == LAYERS
        # The run at either end of a tensor may be cut short.
        assert max(rows) - min(rows) <= max(rows) / 2
        assert max(rows) >= LEAST_ROWS
        assert max(rows) < 256
    assert 0 < pairs[EMBEDDING].compared_rows < 4096


def test_the_same_seed_gives_the_same_plan_and_another_one_another(alignment: Alignment) -> None:
    one, same, other = (plan_reading(alignment, budget_bytes=3_000_000, seed=seed) for seed in (5, 5, 6))
    assert one == same
    assert one.alignment.pairs != other.alignment.pairs


def test_every_row_has_the_same_chance(alignment: Alignment) -> None:
    read = np.zeros(4096)
    share, draws = 0.0, 100
    for seed in range(draws):
        plan = plan_reading(alignment, budget_bytes=4_000_000, seed=seed)
        table = next(pair for pair in plan.alignment.pairs if pair.name == EMBEDDING)
        read[table.row_indices()] += 1
        share += table.compared_rows / 4096 / draws
    # Rows are drawn in runs, so neighbours come together: eighths of the table are compared, the ends among them.
    eighths = read.reshape(8, -1).mean(1) / draws
    np.testing.assert_allclose(eighths, share, rtol=0.25)
    edge = float(read[:16].mean() + read[-16:].mean()) / 2 / draws
    assert edge == pytest.approx(share, abs=4 * np.sqrt(share / draws))


def test_too_little_for_every_matrix_keeps_whole_kinds(alignment: Alignment) -> None:
    plan = plan_reading(alignment, budget_bytes=900_000, seed=3)
    kept = [pair.name for pair in plan.alignment.pairs if "proj" in pair.name]
    assert sum("q_proj" in name for name in kept) == LAYERS
    assert sum("down_proj" in name for name in kept) < LAYERS


def test_reading_further_keeps_what_was_read(alignment: Alignment) -> None:
    plan = plan_reading(alignment, budget_bytes=3_000_000, seed=4)
    table = next(pair for pair in plan.alignment.pairs if pair.name == EMBEDDING)
    wider = more_rows(table, budget_bytes=2 * pair_bytes(table), seed=9)
    assert set(table.row_indices()) < set(wider.row_indices())
    assert pair_bytes(wider) <= 2 * pair_bytes(table)
    assert not more_rows(table, budget_bytes=1 << 30, seed=9).sampled
    assert more_rows(table, budget_bytes=pair_bytes(table) - 1, seed=9) == table


def entry(size: int, sha256: str | None, xet_hash: str | None) -> FileEntry:
    return FileEntry(path="model.safetensors", size_bytes=size, sha256=sha256, xet_hash=xet_hash)


@pytest.mark.parametrize(
    ("base", "candidate", "proven", "claimed"),
    [
        (entry(9, "a", "x"), entry(9, "a", "x"), True, False),
        (entry(9, "a", None), entry(9, "a", "x"), False, True),
        (entry(9, None, "x"), entry(9, None, "x"), False, True),
        (entry(9, "a", "x"), entry(9, "a", "y"), False, False),
        (entry(9, "a", "x"), entry(9, "b", "x"), False, False),
        (entry(9, None, None), entry(9, None, None), False, False),
        (entry(9, "a", "x"), entry(8, "a", "x"), False, False),
    ],
)
def test_only_two_hashes_prove_that_files_are_equal(
    alignment: Alignment, base: FileEntry, candidate: FileEntry, proven: bool, claimed: bool
) -> None:
    found = identical_pairs(alignment.pairs, [base], [candidate])
    names = {pair.name for pair in alignment.pairs}
    assert found.proven == (names if proven else set())
    assert found.claimed == (names if claimed else set())
    plan = plan_reading(alignment, budget_bytes=2_000_000, seed=1, base_files=[base], candidate_files=[candidate])
    assert (plan.planned_bytes == 0) == proven
    assert not plan.complete, "what no hash can show is never called read"
    assert any(skip.why == IDENTICAL for skip in plan.alignment.skips) == proven


def test_tensors_elsewhere_in_an_equal_file_are_not_the_same(alignment: Alignment) -> None:
    moved = tables.table_of({"other.weight": (3, 3), EMBEDDING: (4096, 256)})
    pairs = align(moved, {EMBEDDING: alignment.pairs[0].base}).pairs
    assert len(pairs) == 1
    assert not identical_pairs(pairs, [entry(9, "a", "x")], [entry(9, "a", "x")]).proven
