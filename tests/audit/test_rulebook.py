"""A rule is a triple: source, test, section."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from audit.evidence import Detector, Rule
from audit.rulebook import DETECTORS, all_rules, explain
from audit.thresholds import load_profile

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "audit" / "detectors"


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d.name)
def test_every_detector_has_its_source_and_its_tests(detector: Detector) -> None:
    assert (ROOT / "audit" / "detectors" / f"{detector.name}.py").is_file()
    found = [path for path in TESTS.glob(f"test_{detector.name}*.py") if detector.name in path.stem]
    assert found, f"write tests/audit/detectors/test_{detector.name}.py with planted, clean and innocent cases"


def test_every_source_file_is_in_the_list() -> None:
    sources = {path.stem for path in (ROOT / "audit" / "detectors").glob("*.py")} - {"__init__"}
    assert sources == {detector.name for detector in DETECTORS}


@pytest.mark.parametrize("rule", all_rules(), ids=lambda r: r.id)
def test_every_rule_has_its_section_under_its_title(rule: Rule) -> None:
    text = explain(rule.id)
    assert text.startswith(f"## {rule.id} {rule.title}\n"), f"write a section about {rule.id} into audit/rules.md"
    assert len(text) > 150


@pytest.mark.parametrize("rule", all_rules(), ids=lambda r: r.id)
def test_rules_that_inform_say_so(rule: Rule) -> None:
    assert ("*Informs" in explain(rule.id)) == (not rule.weighs)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda r: r.id)
def test_every_rule_is_told_by_a_test(rule: Rule) -> None:
    """A rule that no test of its detector ever sees fire is a rule that may never fire."""
    detector = next(d for d in DETECTORS if rule in d.rules)
    tests = "".join(path.read_text() for path in TESTS.glob(f"test_{detector.name}*.py"))
    names = [name for name, value in vars(_module(detector)).items() if value is rule]
    assert rule.id in tests or any(re.search(rf"\b{name}\b", tests) for name in names)


def _module(detector: Detector) -> object:
    from importlib import import_module

    return import_module(f"audit.detectors.{detector.name}")


def test_ids_are_unique_and_sections_name_no_other() -> None:
    ids = [rule.id for rule in all_rules()]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"HA\d{3}", i) for i in ids)
    sections = re.findall(r"(?m)^## (HA\d{3})\b", (ROOT / "audit" / "rules.md").read_text(encoding="utf-8"))
    assert sorted(sections) == sorted(ids)


def test_the_page_in_the_docs_is_the_shipped_one() -> None:
    """After a change: cp audit/rules.md docs/rules.md."""
    shipped = files("audit").joinpath("rules.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "rules.md").read_text(encoding="utf-8") == shipped


def test_explain_shows_the_thresholds_in_use() -> None:
    profile = load_profile()
    text = explain("ha201")
    assert f"`HA201.review` = {profile.value('HA201.review'):g}" in text
    assert profile.id in text
    assert "Thresholds" not in explain("HA101")


@pytest.mark.parametrize("name", ["HA999", "", "../rules", "HA2"])
def test_an_unknown_rule_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        explain(name)


def test_every_statistical_rule_has_ordered_thresholds() -> None:
    values = load_profile().values
    for name, value in values.items():
        if name.endswith(".review"):
            assert 0 < value < values[name.replace(".review", ".fail")]
