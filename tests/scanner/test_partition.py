"""What may be a part of what, from names and shapes alone."""

import re
from dataclasses import replace

import numpy as np
import pytest

from scanner.partition import MAX_EXPERTS, MAX_MODULES, MAX_STACKS, MAX_STEPS, Group, Work, propose, propose_turned
from scanner.records import TensorMeta
from scanner.weights.rearranged import Place

AT = "model.layers.3."


def table(**shapes: tuple[int, ...]) -> dict[str, TensorMeta]:
    names = {AT + name.replace("__", "."): shape for name, shape in shapes.items()}
    return {n: TensorMeta(name=n, dtype="F32", shape=s, file="m", start=0, end=4) for n, s in names.items()}


PARTS = table(self_attn__q_proj__weight=(8, 6), self_attn__k_proj__weight=(4, 6), self_attn__v_proj__weight=(4, 6))


def only(groups: list[Group]) -> Group:
    assert len(groups) == 1
    return groups[0]


def test_the_usual_order_comes_first_and_heads_are_tried() -> None:
    fused = table(self_attn__qkv_proj__weight=(16, 6))
    group = only(propose(fused, PARTS, [{"num_key_value_heads": 2}]))
    assert next(iter(group.layouts)) == "query, key, value"
    assert [part.name.rpartition("_proj")[0][-1] for part in group.parts] == ["q", "k", "v"]
    turns = group.layouts["query, key, value in 2 turns"]
    assert turns[1].indices((0, 4)).tolist() == [4, 5, 12, 13]
    for places in group.layouts.values():
        rows = np.concatenate([place.indices((0, place.rows)) for place in places])
        assert sorted(rows.tolist()) == list(range(16)), "every row belongs to one part"


@pytest.mark.parametrize("shape", [(15, 6), (16, 7), (2, 16, 6)])
def test_shapes_that_do_not_add_up_are_nothing(shape: tuple[int, ...]) -> None:
    assert propose(table(self_attn__qkv_proj__weight=shape), PARTS, []) == []


def test_a_turned_tensor_is_filled_the_other_way_round() -> None:
    group = only(propose(table(self_attn__c_attn__weight=(6, 16)), PARTS, []))
    assert all(place.turned for places in group.layouts.values() for place in places)


def test_other_layers_and_two_modules_that_fit_alike_are_a_riddle() -> None:
    fused = table(attn__qkv_proj__weight=(16, 6))
    elsewhere = {n.replace("layers.3", "layers.4"): m for n, m in PARTS.items()}
    assert propose(fused, elsewhere, []) == []
    twice = {n.replace("self_attn", kind): m for kind in ("one_attn", "two_attn") for n, m in PARTS.items()}
    assert propose(fused, twice, []) == []


def test_a_stack_is_made_of_all_of_its_experts() -> None:
    def experts(count: int) -> dict[str, TensorMeta]:
        return table(**{f"mlp__experts__{e}__{p}_proj__weight": (5, 6) for e in range(count) for p in ("gate", "up")})

    group = only(propose(table(mlp__experts__gate_up_proj=(3, 10, 6)), experts(3), []))
    assert len(group.parts) == 6
    assert group.layouts["mlp_gate, mlp_in"][3] == Place(rows=5, offset=5, expert=1)
    assert propose(table(mlp__experts__gate_up_proj=(3, 10, 6)), experts(2), []) == []
    assert propose(table(mlp__experts__gate_up_proj=(3, 10, 6)), experts(4), []) == []
    assert propose(table(mlp__experts__gate_up_proj=(MAX_EXPERTS + 1, 10, 6)), experts(3), []) == []


def hostile(count: int, modules: int) -> tuple[dict[str, TensorMeta], dict[str, TensorMeta]]:
    """One layer with many tensors in one piece, each of which could be made of any module's."""
    fused = table(**{f"m{i}__self_attn__qkv_proj__weight": (16, 6) for i in range(count)})
    names = {f"n{m}__self_attn__{p}_proj__weight": (8 if p == "q" else 4, 6) for m in range(modules) for p in "qkv"}
    return fused, table(**names)


def test_hostile_tables_cost_no_more_than_the_steps_allow() -> None:
    work = Work(steps=1000)
    assert propose(*hostile(100, 8), [], work) == []
    spent_on_each = 2 * 8
    assert work.steps == 1000 % spent_on_each
    assert work.unseen == 100 - 1000 // spent_on_each


def test_modules_beyond_those_looked_at_cost_nothing() -> None:
    few, many = Work(), Work()
    propose(*hostile(3, MAX_MODULES), [], few)
    propose(*hostile(3, 10 * MAX_MODULES), [], many)
    assert few.steps == many.steps < MAX_STEPS


def test_a_stack_costs_a_step_for_each_expert() -> None:
    work = Work()
    stack = table(**{f"m{i}__experts__gate_up_proj": (MAX_EXPERTS, 10, 6) for i in range(MAX_STACKS)})
    part = table(mlp__experts__0__gate_proj__weight=(5, 6), mlp__experts__0__up_proj__weight=(5, 6))
    assert propose(stack, part, [], work) == []
    assert MAX_STEPS - work.steps == (MAX_STACKS - work.unseen) * (1 + MAX_EXPERTS)
    assert work.unseen > 0


def test_the_largest_models_with_renamed_experts_fit() -> None:
    layers, experts = 61, 256
    ours = table(**{f"experts__{e}__{p}_proj__weight": (5, 6) for e in range(experts) for p in ("gate", "up", "down")})
    written = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    names = {name: re.sub(r"\w+_proj", lambda match: written[match[0]], name) for name in ours}
    work = Work()
    found = propose(ours, {there: replace(ours[here], name=there) for here, there in names.items()}, [], work)
    assert len(found) == len(ours)
    assert work.unseen == 0
    assert layers * (MAX_STEPS - work.steps) < MAX_STEPS


def test_square_matrices_may_be_turned_only_where_others_are() -> None:
    square = table(attn__c_proj__weight=(6, 6))
    assert propose_turned(square, square) == []
    ours, theirs = table(mlp__c_fc__weight=(24, 6)), table(mlp__c_fc__weight=(6, 24))
    groups = propose_turned(square | ours, square | theirs)
    assert [tuple(group.layouts) for group in groups] == [("turned",), ("as it is", "turned")]
