import curved
import numpy as np
import pytest
from evidence_for import token_table

from audit.curved_rows import discoveries, row_test, telling_rows

LAYERS = range(4)
WRITERS = [curved.spec(f"layer.{n}.output.weight", (96, 64), role="mlp_out", layer=n) for n in LAYERS]
READERS = [curved.spec(f"layer.{n}.intermediate.weight", (256, 64), role="mlp_in", layer=n) for n in LAYERS]
TABLE = curved.spec("embeddings.word", (400, 32), role="embedding", layer=None)
TOKENS = token_table(tuple(f"t{i}" for i in range(400)), special=5)


def found(**options):
    facts = curved.curvature_facts(*WRITERS, *READERS, TABLE, unreached={TABLE.name: slice(150, 400)}, **options)
    return discoveries(facts.tensors, TOKENS, rate=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_rows_that_follow_the_law_are_no_discoveries(seed):
    clean = found(seed=seed)
    assert len(clean.tests) == 9
    assert not any(clean.by_e_bh)


def test_an_edited_unit_is_the_first_discovery():
    shown = found(edited={READERS[2].name: {17: 300.0}})
    assert shown.tests[0].tensor.spec.name == READERS[2].name
    assert shown.by_e_bh[0]
    assert shown.by_bh[0]
    rows = telling_rows(shown, 0, rate=0.05)
    assert [row.row for row in rows] == [17]
    assert rows[0].ratio == pytest.approx(90_000, rel=0.7)
    assert sum(shown.by_e_bh) == 1


def test_a_channel_that_stands_out_in_two_layers_is_none():
    once = found(edited={WRITERS[1].name: {9: 1000.0}})
    twice = found(edited={WRITERS[1].name: {9: 1000.0}, WRITERS[3].name: {9: 1000.0}})
    assert any(once.by_e_bh)
    assert not any(twice.by_e_bh)


def test_a_token_that_the_data_hold_is_found_and_one_that_they_do_not_is_not_judged():
    shown = found(edited={TABLE.name: {33: 400.0}})
    assert shown.tests[0].tensor.spec.name == TABLE.name
    (row,) = telling_rows(shown, 0, rate=0.05)
    assert row.row == 33
    assert row.ratio > 40_000
    assert not any(found(edited={TABLE.name: {333: 400.0}}).by_e_bh)


def test_control_tokens_take_no_part():
    assert not any(found(edited={TABLE.name: {2: 400.0}}).by_e_bh)


@pytest.mark.parametrize("role", ["position", "pooler", "head"])
def test_what_has_no_siblings_takes_no_part(role):
    alone = curved.spec("alone.weight", (400, 32), role=role, layer=None)
    facts = curved.curvature_facts(alone, edited={alone.name: {0: 400.0}})
    assert discoveries(facts.tensors, None, rate=0.05).tests == ()


def test_too_few_rows_are_no_test():
    small = curved.curvature_facts(curved.spec("head", (40, 64), role="head", layer=None)).tensors[0]
    assert row_test(small, None) is None


def test_what_is_usual_elsewhere_is_taken_off():
    tensor = curved.curvature_facts(READERS[0], edited={READERS[0].name: {3: 300.0}}).tensors[0]
    usual = np.zeros(256)
    usual[3] = np.log(tensor.row_ratio[3])
    assert row_test(tensor, None).p_value < 1e-6
    assert row_test(tensor, None, usual).p_value > 1e-3
