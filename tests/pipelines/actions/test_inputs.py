from pathlib import Path

import pytest

from pipelines.actions.inputs import Target, read_inputs
from scanner.errors import BadReference

FORMATS = ("table", "json", "html", "sarif")


def read(tmp_path: Path, config: str | None = None, **inputs: str):
    environment = {f"INPUT_{name.upper()}": value for name, value in inputs.items()}
    if config is not None:
        path = tmp_path / "config.yml"
        path.write_text(config)
        environment["INPUT_CONFIG"] = str(path)
    return read_inputs(environment | {"RUNNER_TEMP": str(tmp_path)}, FORMATS)


def test_models_are_words(tmp_path: Path) -> None:
    found = read(tmp_path, models=" a/b,\n c/d@v1  a/b ", fail_on="fail", base="x/y")
    assert found.targets == (
        Target(model="a/b", base="x/y", fail_on="fail"),
        Target(model="c/d@v1", base="x/y", fail_on="fail"),
    )
    assert found.output == tmp_path / "hubaudit-reports"
    assert found.publish == "none"
    assert found.summary


def test_empty_inputs_are_not_given(tmp_path: Path) -> None:
    found = read(tmp_path, models="a/b", base="", revision=" ", fail_on="", publish="", sarif_file="", formats="")
    assert found.targets == (Target(model="a/b"),)
    assert found.sarif_file is None
    assert found.formats == ()


def test_a_configuration_overrides_from_the_outside_in(tmp_path: Path) -> None:
    config = "fail-on: fail\nauthors: [me]\nmodels:\n- a/b\n- {model: c/d, revision: v1, base: x/y, fail-on: never}\n"
    found = read(tmp_path, config, models="e/f", base="z/z")
    assert found.targets == (
        Target(model="e/f", base="z/z"),
        Target(model="a/b", base="z/z", fail_on="fail"),
        Target(model="c/d@v1", base="x/y", fail_on="never"),
    )
    assert found.authors == ("me",)
    assert found.author_target == Target(model="", base="z/z", fail_on="fail")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("model: [a/b]\n", "did you mean models"),
        ("models: a/b\n", "are lists"),
        ("models: [[a/b]]\n", "a name, or a mapping"),
        ("models: [{base: a/b}]\n", "the key model is missing"),
        ("models: [{model: a/b, bsae: c}]\n", "did you mean base"),
        ("models: [{model: a/b, base: [c]}]\n", "base is not a text"),
        ("models: [--help]\n", "is not a model"),
        ('models: ["a\\u202eb"]\n', "model is not a text"),
        ("models: [1]\n", "a name, or a mapping"),
        ("fail-on: maybe\nmodels: [a/b]\n", "it takes review, fail, never"),
        ("models: [a/b]\nmodels: [c/d]\n", "more than once"),
        ("models: [", "not valid YAML"),
        ("!!python/object/apply:os.system [id]\n", "not"),
        ("- a/b\n", "not a mapping"),
        ("", "No model is named"),
        ("models: []\n", "No model is named"),
    ],
)
def test_a_configuration_that_cannot_be_understood(tmp_path: Path, config: str, said: str) -> None:
    with pytest.raises(BadReference, match=said):
        read(tmp_path, config)


@pytest.mark.parametrize(
    "inputs",
    [
        {"models": "a/b c/d", "revision": "v1"},
        {"models": "a/b@v1", "revision": "v2"},
        {"models": "a/b c/d", "sarif_file": "x.sarif"},
        {"models": "--output=/etc/passwd"},
        {"models": "a/b", "formats": "pdf"},
        {"models": "a/b", "publish": "yes"},
        {"models": "a/b", "summary": "maybe"},
        {"models": "a/b", "output": "x\ny=z"},
        {"models": " ".join(f"a/{n}" for n in range(2001))},
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, inputs: dict[str, str]) -> None:
    with pytest.raises(BadReference):
        read(tmp_path, **inputs)
