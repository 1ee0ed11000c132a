"""The library's own names for tensors: the real child process, and configurations that ask for too much."""

import pytest
from stopwatch import at_most

from scanner.conversions import _child_environment, canonical_names, canonicalise, clean_config

BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}


def test_the_child_process_answers_for_several_checkpoints_in_order(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_not_to_be_passed_on")
    assert "hf_not_to_be_passed_on" not in _child_environment().values()
    old = ["bert.encoder.layer.0.output.LayerNorm.gamma", "encoder.layer.1.output.dense.weight"]
    first, second, third = canonical_names([(old, BERT), (["w"], {"model_type": "no-such-type"}), (["w"], None)])
    assert dict(first.names) == {
        old[0]: "encoder.layer.0.output.LayerNorm.weight",
        old[1]: "encoder.layer.1.output.dense.weight",
    }
    assert first.problem is None
    assert not first.fused
    assert "does not know the model type 'no-such-type'" in second.problem
    assert "no model type" in third.problem


def test_without_a_model_type_no_process_is_started(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    answers = canonical_names([(["a"], None), (["b"], {"model_type": 7})])
    assert all("no model type" in answer.problem for answer in answers)


def test_a_child_that_takes_too_long_is_a_problem_not_an_error():
    (answer,) = canonical_names([(["w"], BERT)], timeout_seconds=0.05)
    assert "within 0.05 seconds" in answer.problem
    assert not answer.names


def test_an_interpreter_that_cannot_start_is_a_problem_not_an_error(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    (answer,) = canonical_names([(["w"], BERT)])
    assert "could not be asked" in answer.problem


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"attention_types": [[["global", "local"], 10**9]]},
        {"text_config": {"num_experts": 10**7}},
        {"a": [1] * 100_000},
    ],
)
def test_absurd_sizes_are_refused_at_once(change):
    with at_most(1):
        answer = canonicalise(["w"], BERT | change)
        assert "the configuration" in answer.problem


def test_a_nested_configuration_is_refused_at_once():
    nested: dict = {}
    for _ in range(50):
        nested = {"x": nested}
    assert "nested too deeply" in canonicalise(["w"], BERT | {"x": nested}).problem


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 33},
        {"num_attention_heads": 0},
        {"hidden_act": "no such activation"},
        {"vocab_size": "many"},
        {"hidden_size": None},
        {"vocab_size": -5},
    ],
)
def test_a_configuration_that_cannot_be_built_is_a_problem(change):
    answer = canonicalise(["w"], BERT | change)
    assert answer.problem
    assert "\n" not in answer.problem


def test_what_could_load_code_is_left_out():
    hostile = BERT | {
        "auto_map": {"AutoModel": "evil.Model"},
        "_attn_implementation": "evil/kernel",
        "attn_implementation": "evil/kernel",
        "experts_implementation": "evil/kernel",
        "use_kernels": True,
        "quantization_config": {"quant_method": "evil"},
        "backbone": "evil",
        "use_timm_backbone": True,
        "torch_dtype": "evil",
        "text_config": {"_attn_implementation": "evil/kernel", "vision_config": [{"auto_map": {}}]},
    }
    clean = clean_config(hostile)
    assert clean == BERT | {"text_config": {"vision_config": [{}]}}
    assert canonicalise(["bert.pooler.dense.weight"], hostile).names == {
        "bert.pooler.dense.weight": "pooler.dense.weight"
    }
