"""The bill of materials: valid by the library's own strict validator, whatever a report holds."""

import dataclasses
import json

import pytest
import sample_reports
from any_report import reports
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import HealthCheck, given, settings

from audit.records import FileRecord, Suppression
from reports.cyclonedx import FINDINGS_LISTED, render_cyclonedx
from reports.formats import render

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
SHA = "ab" * 32


def bom(report):
    text = render_cyclonedx(report)
    assert text.isascii()
    problem = VALIDATOR.validate_str(text)
    assert problem is None, problem
    return json.loads(text)


def with_files(report, *files):
    return dataclasses.replace(report, subject=dataclasses.replace(report.subject, files=files))


def properties(part):
    return {entry["name"].removeprefix("hubaudit:"): entry["value"] for entry in part["properties"]}


@pytest.mark.parametrize("name", sample_reports.SAMPLES)
def test_every_sample_is_valid_and_the_same_report_gives_the_same_bytes(name):
    report = sample_reports.SAMPLES[name]()
    bom(report)
    assert render_cyclonedx(report) == render(report, "cyclonedx")


@given(report=reports())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_report_is_valid(report):
    bom(report)


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "<script>", "\ud800", "a\u202eb", "{0}", "../..", " "])
def test_hostile_text_is_valid_and_visible(text):
    found = json.dumps(bom(sample_reports.hostile(text)), ensure_ascii=False)
    assert "\x1b" not in found
    assert "\u202e" not in found


def test_the_model_is_pinned_and_its_base_is_the_ancestor():
    report = sample_reports.honest()
    model = bom(report)["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["purl"] == f"pkg:huggingface/demo/reviews-honest@{sample_reports.CANDIDATE_SHA}"
    (base,) = model["pedigree"]["ancestors"]
    assert base["purl"] == f"pkg:huggingface/demo/small-encoder@{sample_reports.BASE_SHA}"
    (root,) = base["pedigree"]["ancestors"]
    assert root["purl"] == "pkg:huggingface/demo/tiny-pretrained"
    assert "base verified" in model["pedigree"]["notes"]
    assert properties(model)["outcome"] == "pass"


def test_a_contradicted_base_is_no_ancestor():
    pedigree = bom(sample_reports.wrong_base())["metadata"]["component"]["pedigree"]
    assert "ancestors" not in pedigree
    assert "demo/other-encoder" in pedigree["notes"]
    assert "base contradicted" in pedigree["notes"]
    assert "Nearest other model: demo/small-encoder" in pedigree["notes"]


def test_a_folder_has_no_package_url():
    report = sample_reports.honest()
    subject = dataclasses.replace(report.subject, repo_id=None, path="/home/me/org/model", revision=None)
    model = bom(dataclasses.replace(report, subject=subject))["metadata"]["component"]
    assert model["name"] == "/home/me/org/model"
    assert "purl" not in model
    assert "externalReferences" not in model


def test_files_carry_the_hashes_that_the_hub_declares():
    report = with_files(
        sample_reports.honest(),
        FileRecord(path="model.safetensors", size_bytes=90_000_000, sha256=SHA.upper()),
        FileRecord(path="odd.bin", size_bytes=1, sha256="not a hash"),
    )
    document = bom(report)
    first, second = sorted(document["components"], key=lambda part: part["name"])
    assert (first["type"], first["name"]) == ("file", "model.safetensors")
    assert first["hashes"] == [{"alg": "SHA-256", "content": SHA}]
    assert properties(first)["size"] == "90000000"
    assert "hashes" not in second
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert sorted(depends["model"]) == sorted([first["bom-ref"], second["bom-ref"]])


def test_findings_are_listed_with_severity_place_and_remedy():
    document = bom(sample_reports.poisoned_row())
    finding = next(entry for entry in document["vulnerabilities"] if entry["id"] == "HA201")
    assert finding["ratings"][0]["severity"] == "critical"
    assert finding["ratings"][0]["method"] == "other"
    assert finding["affects"] == [{"ref": document["metadata"]["component"]["bom-ref"]}]
    assert "robust z of log row drift 17.1" in finding["detail"]
    assert finding["recommendation"].startswith("Do not feed")
    assert properties(finding)["fingerprint"] == "8f3a1c0b5d7e9f21"
    assert "tokens cf mn" in properties(finding)["location"]
    assert "analysis" not in finding


def test_an_accepted_finding_says_so():
    report = sample_reports.poisoned_row()
    accepted = dataclasses.replace(report.findings[0], suppression=Suppression(reason="known", expires="2027-06-30"))
    document = bom(dataclasses.replace(report, findings=(accepted,)))
    (finding,) = document["vulnerabilities"]
    assert finding["analysis"] == {"detail": "Accepted until 2027-06-30: known", "response": ["will_not_fix"]}


def test_card_claims_and_the_answer_are_in_words():
    document = bom(sample_reports.poisoned_row())
    claims = {entry["name"]: entry["value"] for entry in document["metadata"]["component"]["modelCard"]["properties"]}
    assert claims["hubaudit:claim:licence"] == "not checkable: declared apache-2.0"
    (answer,) = document["annotations"]
    assert answer["subjects"] == ["model"]
    assert answer["text"].startswith("FAIL: 1 critical, 1 low")
    assert "The model was not run" in answer["text"]


def test_ten_thousand_findings_are_bounded():
    report = sample_reports.poisoned_row()
    many = tuple(dataclasses.replace(report.findings[1], fingerprint=f"{n:016x}") for n in range(FINDINGS_LISTED + 7))
    text = render_cyclonedx(dataclasses.replace(report, findings=many))
    document = json.loads(text)
    assert len(document["vulnerabilities"]) == FINDINGS_LISTED
    assert properties(document["metadata"]["component"])["findings-not-listed"] == "7"


@pytest.mark.parametrize("when", ["yesterday", "", "0001-01-01T00:00:00+23:59", "2026-11-20T08:07:00"])
def test_a_strange_time_stamp_costs_nothing(when):
    bom(dataclasses.replace(sample_reports.honest(), created_at=when))
