import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import sample_reports
from any_report import reports
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from audit.records import Measurement
from reports.json_v1 import ReportFormatError, dump, json_schema, load
from reports.schema import SCHEMA_FILE, schema_text, write_schema
from scanner.errors import HubAuditError

GOLDENS = sorted((Path(__file__).parents[1] / "goldens" / "json").glob("*/*.json"))

TOP_LEVEL = ["schema", "tool", "created_at", "subject", "lineage", "coverage", "verdict", "findings", "card", "drift"]
TOP_LEVEL += ["runtime", "profile", "probe", "triage", "purification", "curvature"]


def tree_of(report):
    return json.loads(dump(report))


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_a_report_comes_back_as_it_was(name):
    report = sample_reports.SAMPLES[name]()
    assert load(dump(report)) == report


@given(reports())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_report_comes_back_as_it_was(report):
    assert load(dump(report)) == report


def test_field_names_are_those_of_the_contract():
    tree = tree_of(sample_reports.poisoned_row())
    assert list(tree) == TOP_LEVEL
    assert set(tree["subject"]) == {"repo_id", "path", "revision", "kind", "files"}
    assert set(tree["lineage"]["base"]) == {"repo_id", "path", "revision"}
    assert set(tree["card"]) == {"claims"}
    assert set(tree["card"]["claims"][0]) == {"claim", "declared", "observed", "status"}
    assert set(tree["coverage"]["skipped"][0]) == {"what", "why"}
    finding = tree["findings"][0]
    assert finding["locations"][0]["rows"] == [[12935, 12936], [24098, 24099]]
    assert finding["locations"][0]["tokens"][0] == {"id": 12935, "text": "cf"}
    assert set(finding["measurements"][0]) == {"name", "value", "unit", "threshold", "comparison"}
    assert tree["verdict"]["reasons"] == [finding["fingerprint"]]
    assert set(tree["runtime"]) == {"seconds", "peak_rss_bytes", "requests"}


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_what_is_written_obeys_the_schema(name):
    Draft202012Validator(json_schema()).validate(tree_of(sample_reports.SAMPLES[name]()))


def test_the_schema_rejects_what_the_contract_forbids():
    validator = Draft202012Validator(json_schema())
    tree = tree_of(sample_reports.honest())
    tree["verdict"]["outcome"] = "safe"
    assert not validator.is_valid(tree)


def test_the_committed_schema_is_the_generated_one():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `python -m reports.schema` and commit"


def test_the_schema_is_written_as_it_is_compared(tmp_path):
    write_schema(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_text(encoding="utf-8") == schema_text()
    assert json.loads(schema_text()) == json_schema()


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_reports_of_every_release_are_read_for_ever(path):
    report = load(path.read_bytes())
    written, kept = tree_of(report), json.loads(path.read_bytes())
    for key in ("schema", "tool", "subject", "lineage", "coverage", "verdict", "findings", "card", "drift"):
        assert includes(written[key], kept[key]), key


def includes(new, old):
    """True when everything in ``old`` is still there: later versions may only add fields."""
    if isinstance(old, dict):
        return all(key in new and includes(new[key], value) for key, value in old.items())
    if isinstance(old, list):
        return len(new) == len(old) and all(map(includes, new, old))
    return new == old


def test_there_are_goldens():
    assert {path.parent.name for path in GOLDENS} >= {"0.1.0"}
    assert not includes({"a": [1]}, {"a": [2]})


def test_unknown_keys_are_ignored():
    report = sample_reports.honest()
    tree = tree_of(report)
    tree["of_a_later_release"] = {"x": [1]}
    tree["verdict"]["mood"] = "good"
    tree["drift"][0]["entropy"] = 1.5
    assert load(json.dumps(tree).encode()) == report


def test_fields_added_later_have_defaults():
    tree = tree_of(sample_reports.honest())
    for key in ("findings", "card", "drift", "profile"):
        del tree[key]
    assert load(json.dumps(tree).encode()).findings == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tree: tree["coverage"].update(parameters_total="many"), r"report\.coverage\.parameters_total"),
        (lambda tree: tree["coverage"].update(parameters_total=1.5), r"report\.coverage\.parameters_total"),
        (lambda tree: tree["verdict"].update(outcome="safe"), r"report\.verdict\.outcome"),
        (lambda tree: tree["findings"][0].update(locations=[]), "a finding needs a location"),
        (lambda tree: tree.pop("subject"), r"report\.subject"),
        (lambda tree: tree["subject"].update(repo_id=7), r"report\.subject\.repo_id"),
        (lambda tree: tree["coverage"].update(bytes_read=2**63), r"report\.coverage\.bytes_read.*64 bits"),
        (lambda tree: tree["profile"].update(deep=json.loads("[" * 30 + "]" * 30)), "nested too deeply"),
        (lambda tree: tree.update(schema="hello"), "does not end in a version"),
        (lambda tree: tree.update(schema=1), "does not end in a version"),
        (lambda tree: tree.update(schema="https://x/v2"), "format version 2.*reads version 1"),
        (lambda tree: (tree.update(schema="https://x/v2"), tree.pop("verdict")), "format version 2"),
    ],
)
def test_what_cannot_be_used_is_one_clear_sentence(change, complaint):
    tree = tree_of(sample_reports.poisoned_row())
    change(tree)
    with pytest.raises(ReportFormatError, match=complaint) as caught:
        load(json.dumps(tree).encode())
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, HubAuditError)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"schema": "x/v1"', b"<html>"]
)
def test_what_is_no_report_is_refused(data):
    with pytest.raises(ReportFormatError, match="not a report that hubaudit can use"):
        load(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_on_reading(number):
    text = dump(sample_reports.honest()).replace(b'"score": 0.21', f'"score": {number}'.encode())
    with pytest.raises(ReportFormatError, match=r"report\.verdict\.score"):
        load(text)
    text = dump(sample_reports.honest()).replace(b'"id": "encoder-2026-11"', f'"id": {number}'.encode())
    with pytest.raises(ReportFormatError, match=r"report\.profile\.id: a number that is not finite"):
        load(text)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_never_written(number):
    report = sample_reports.poisoned_row()
    finding = dataclasses.replace(report.findings[0], measurements=(Measurement(name="z", value=number),))
    with pytest.raises(ReportFormatError, match=r"report\.findings\.0\.measurements\.0\.value.*not finite"):
        dump(dataclasses.replace(report, findings=(finding,)))


def test_only_v1_is_written():
    with pytest.raises(ReportFormatError, match="format version 2"):
        dump(dataclasses.replace(sample_reports.honest(), schema="https://x/v2"))


def test_numbers_of_numpy_are_written_as_plain_ones():
    report = dataclasses.replace(sample_reports.honest(), profile={"n": np.int64(3), "x": np.float32(0.5), "b": True})
    assert tree_of(report)["profile"] == {"n": 3, "x": 0.5, "b": True}


def test_values_that_json_has_no_form_for_are_refused():
    with pytest.raises(ReportFormatError, match=r"report\.profile\.x: a set"):
        dump(dataclasses.replace(sample_reports.honest(), profile={"x": {1}}))


def test_hostile_text_is_kept_exactly_and_written_in_ascii():
    report = sample_reports.hostile("\x1b]0;x\x07\u202e<!--\u2028\x00")
    raw = dump(report)
    assert raw.isascii()
    assert not set(raw) & (set(range(32)) - {10})
    assert load(raw) == report


def test_lone_surrogates_become_replacement_characters():
    report = dataclasses.replace(sample_reports.honest(), created_at="a\ud800b")
    assert load(dump(report)).created_at == "a\ufffdb"
