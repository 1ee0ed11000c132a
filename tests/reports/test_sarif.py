import dataclasses
import gzip
import json
import random
import re
from pathlib import Path

import pytest
import sample_reports
from any_report import reports as any_reports
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft7Validator

import reports.sarif
from audit.records import SEVERITIES, Location, SkipRecord, Suppression
from audit.rulebook import all_rules, explain
from reports.formats import render
from reports.sarif import RESULTS_SHOWN, SEVERITY_TABLE, render_sarif

SCHEMA = Path(__file__).parents[3] / "shared" / "schemas" / "sarif-schema-2.1.0.json"


@pytest.fixture(scope="module")
def validator():
    if not SCHEMA.exists():
        pytest.skip(f"the official SARIF schema is not at {SCHEMA}")
    return Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def run_of(report, **options):
    return json.loads(render_sarif(report, **options))["runs"][0]


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_it_obeys_the_official_schema(validator, name):
    validator.validate(json.loads(render_sarif(sample_reports.SAMPLES[name]())))
    validator.validate(json.loads(render_sarif(sample_reports.hostile("\x1b<\n"))))


@given(report=any_reports())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_report_obeys_the_official_schema(validator, report):
    validator.validate(json.loads(render_sarif(report)))


def test_a_result_has_rule_level_place_and_a_stable_fingerprint():
    run = run_of(sample_reports.poisoned_row())
    result = run["results"][0]
    assert result["ruleId"] == "HA201"
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "HA201"
    assert result["level"] == "error"
    assert result["partialFingerprints"] == {"hubaudit/v1": "8f3a1c0b5d7e9f21"}
    location = result["locations"][0]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "model.safetensors"},
        "region": {"startLine": 1},
    }
    logical = location["logicalLocations"][0]
    assert logical["fullyQualifiedName"] == "embeddings.word_embeddings.weight"
    assert logical["properties"] == {"where": "rows 12,935, 24,098", "tokens": ["cf", "mn"]}
    assert "robust z of log row drift 17.1 σ (threshold > 6)" in result["message"]["text"]
    assert "What to do: Do not feed" in result["message"]["text"]


def test_fingerprints_do_not_move_with_numbers_or_revisions():
    report = sample_reports.poisoned_row()
    later = dataclasses.replace(
        report,
        subject=dataclasses.replace(report.subject, revision="f" * 40),
        findings=tuple(dataclasses.replace(f, explanation="other words") for f in report.findings),
    )
    prints = [[r["partialFingerprints"] for r in run_of(each)["results"]] for each in (report, later)]
    assert prints[0] == prints[1]


def test_every_severity_has_a_level_that_grows_with_it():
    assert set(SEVERITY_TABLE) == set(SEVERITIES)
    scores = [float(SEVERITY_TABLE[severity][1]) for severity in SEVERITIES]
    assert scores == sorted(scores)
    ranks = [("note", "warning", "error").index(SEVERITY_TABLE[severity][0]) for severity in SEVERITIES]
    assert ranks == sorted(ranks)


def test_the_help_of_a_rule_is_its_section_of_the_rule_book():
    try:
        section = explain("HA201")
    except FileNotFoundError:
        pytest.skip("the rule book, audit/rules.md, is not there")
    rule = run_of(sample_reports.poisoned_row())["tool"]["driver"]["rules"][0]
    assert rule["help"]["markdown"] == section
    assert section.startswith("## HA201")


def test_known_rules_keep_their_usual_title_and_severity():
    known = {rule.id: rule for rule in all_rules()}
    report = sample_reports.poisoned_row()
    lowered = dataclasses.replace(report.findings[0], severity="low", title="Another title")
    rule = run_of(dataclasses.replace(report, findings=(lowered,)))["tool"]["driver"]["rules"][0]
    assert rule["shortDescription"]["text"] == known["HA201"].title
    assert rule["properties"]["security-severity"] == SEVERITY_TABLE[known["HA201"].severity][1]
    assert "hubaudit explain HA201" in rule["help"]["text"]


def test_rules_that_this_version_does_not_know_are_described_by_their_findings():
    report = sample_reports.poisoned_row()
    foreign = dataclasses.replace(report.findings[0], rule_id="XX999")
    rule = run_of(dataclasses.replace(report, findings=(foreign, foreign)))["tool"]["driver"]["rules"]
    assert [entry["id"] for entry in rule] == ["XX999"]
    assert rule[0]["shortDescription"]["text"] == foreign.title
    assert rule[0]["properties"]["security-severity"] == "9.5"
    assert "hubaudit explain XX999" in rule[0]["help"]["text"]
    assert "markdown" not in rule[0]["help"]


@pytest.mark.parametrize(
    ("readme", "line"),
    [
        (None, 1),
        ("", 1),
        ("# no front matter\nbase_model: x\n", 1),
        ("---\nlicense: mit\nbase_model: x/y\n---\n", 3),
        ("\ufeff---\r\nbase_model:\r\n- x/y\r\n---\r\n", 2),
        ("---\nlicense: mit\n---\nbase_model: x\n", 1),
        ("---\nbase_model_relation: finetune\n", 1),
    ],
)
def test_findings_about_the_card_point_at_the_declaration(readme, line):
    location = run_of(sample_reports.wrong_base(), readme=readme)["results"][0]["locations"][0]
    assert location == {"physicalLocation": {"artifactLocation": {"uri": "README.md"}, "region": {"startLine": line}}}


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("weights/model 1.safetensors", "weights/model%201.safetensors"),
        ("../../etc/passwd", "etc/passwd"),
        ("/abs", "abs"),
        ("https://evil.example/x", "https%3A/evil.example/x"),
        ("..", "README.md"),
        ("", "README.md"),
        ("ü\n", "%C3%BC%0A"),
    ],
)
def test_files_become_relative_addresses(file, uri):
    report = sample_reports.poisoned_row()
    finding = dataclasses.replace(report.findings[0], locations=(Location(file=file),))
    location = run_of(dataclasses.replace(report, findings=(finding,)))["results"][0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_what_was_not_compared_is_a_notification_and_inconclusive_is_not_success():
    invocation = run_of(sample_reports.inconclusive())["invocations"][0]
    assert invocation["executionSuccessful"] is False
    notes = invocation["toolExecutionNotifications"]
    assert notes[0]["level"] == "error"
    assert "This is not a pass" in notes[0]["message"]["text"]
    assert any("is missing from the repository: model.layers.16" in note["message"]["text"] for note in notes)
    assert any(note["message"]["text"].endswith("and 11 more") for note in notes)
    assert invocation["endTimeUtc"] == "2026-11-20T08:07:00Z"
    declared = {entry["id"] for entry in run_of(sample_reports.inconclusive())["tool"]["driver"]["notifications"]}
    assert {note["descriptor"]["id"] for note in notes} <= declared
    assert run_of(sample_reports.honest())["invocations"][0]["executionSuccessful"] is True


def test_notes_of_a_verdict_and_surplus_reasons_are_told():
    report = sample_reports.honest()
    skips = tuple(SkipRecord(what="w", why=f"reason {n}") for n in range(23))
    report = dataclasses.replace(
        report,
        verdict=dataclasses.replace(report.verdict, notes=("identical to the base",)),
        coverage=dataclasses.replace(report.coverage, skipped=skips),
        created_at="not a time",
    )
    invocation = run_of(report)["invocations"][0]
    texts = [note["message"]["text"] for note in invocation["toolExecutionNotifications"]]
    assert texts[0] == "identical to the base"
    assert texts[-1].startswith("and 3 more reasons")
    assert "endTimeUtc" not in invocation


def test_coverage_and_verdict_are_in_the_properties():
    properties = run_of(sample_reports.honest())["properties"]
    assert properties["coverage"] == "99.99 % of 22.7 M parameters compared"
    assert properties["outcome"] == "pass"
    assert properties["base"] == "demo/small-encoder"
    assert run_of(sample_reports.inconclusive())["properties"]["base"] is None


def test_the_audited_commit_is_named_for_repositories_only():
    details = run_of(sample_reports.honest())["versionControlProvenance"][0]
    assert details["repositoryUri"] == "https://huggingface.co/demo/reviews-honest"
    assert details["revisionId"] == sample_reports.CANDIDATE_SHA
    assert "versionControlProvenance" not in run_of(sample_reports.inconclusive())
    assert "versionControlProvenance" not in run_of(sample_reports.hostile("x y"))


def test_no_more_results_and_places_than_viewers_show():
    report = sample_reports.poisoned_row()
    finding = dataclasses.replace(report.findings[0], locations=report.findings[0].locations * 300)
    run = run_of(dataclasses.replace(report, findings=(finding, *(report.findings[1],) * 5100)))
    assert len(run["results"]) == RESULTS_SHOWN
    assert len(run["results"][0]["locations"]) == 100
    texts = [note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"]]
    assert "101 more findings are in the JSON report" in texts


def test_messages_hold_neither_links_nor_placeholders():
    report = sample_reports.poisoned_row()
    finding = dataclasses.replace(report.findings[0], explanation="see [here](https://x) and {0} or [CLS] {x}")
    text = run_of(dataclasses.replace(report, findings=(finding,)))["results"][0]["message"]["text"]
    assert "[here] (https://x) and {{0}} or [CLS] {x}" in text
    assert not re.search(r"\]\(", text)


def accepted(report):
    suppression = Suppression(reason="known \x1b[31m, see {0} [here](https://x)", expires="2027-06-30")
    first, *others = report.findings
    return dataclasses.replace(report, findings=(dataclasses.replace(first, suppression=suppression), *others))


def test_an_accepted_finding_is_suppressed_there(validator):
    report = accepted(sample_reports.poisoned_row())
    validator.validate(json.loads(render_sarif(report)))
    first, second = run_of(report)["results"]
    assert first["suppressions"] == [
        {
            "kind": "external",
            "justification": "known \\x1b[31m, see {0} [here](https://x)",
            "properties": {"expires": "2027-06-30"},
        }
    ]
    assert second["suppressions"] == []


@pytest.mark.parametrize("name", ["table", "markdown", "summary", "html"])
def test_every_other_format_says_accepted(name):
    text = render(accepted(sample_reports.poisoned_row()), name)
    assert "accepted" in text.lower()
    assert "1 low, 1 accepted" in text or name == "markdown"
    assert "\x1b" not in text


def test_many_hostile_results_stay_within_what_code_scanning_takes():
    # GitHub: 25,000 results a run of which 5,000 are shown, 1,000 places a result, 10 MB packed.
    report = sample_reports.poisoned_row()
    place = dataclasses.replace(report.findings[0].locations[0], tensor="\x1b[31m\u202e<script>{}.weight")
    finding = dataclasses.replace(report.findings[0], locations=(place,) * 300)
    many = tuple(dataclasses.replace(finding, fingerprint=f"{n:016x}") for n in range(RESULTS_SHOWN + 2))
    text = render_sarif(dataclasses.replace(report, findings=many))
    assert len(gzip.compress(text.encode(), compresslevel=1)) < 10_000_000
    results = json.loads(text)["runs"][0]["results"]
    assert len(results) == RESULTS_SHOWN
    assert {len(result["locations"]) for result in results} == {5}
    assert {place["physicalLocation"]["region"]["startLine"] for place in results[0]["locations"]} == {1}
    assert len({result["partialFingerprints"]["hubaudit/v1"] for result in results}) == RESULTS_SHOWN


def test_results_that_cannot_be_packed_give_way_and_say_so(monkeypatch):
    monkeypatch.setattr(reports.sarif, "PACKED_LIMIT_BYTES", 60_000)
    report = sample_reports.poisoned_row()
    draw = random.Random(1)
    many = tuple(
        dataclasses.replace(report.findings[0], fingerprint=f"{n:016x}", explanation=draw.randbytes(900).hex())
        for n in range(100)
    )
    text = render_sarif(dataclasses.replace(report, findings=many))
    assert len(gzip.compress(text.encode(), compresslevel=1)) <= 60_000
    run = json.loads(text)["runs"][0]
    assert 0 < len(run["results"]) < 100
    notes = [note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"]]
    assert f"{100 - len(run['results'])} more findings are in the JSON report" in notes
