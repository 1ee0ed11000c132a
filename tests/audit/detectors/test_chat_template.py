"""Templates: innocent changes stay a note, planted ones are told by their rule."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import evidence_for
import pytest
from chat_templates import ATTACKS, CHATML, INNOCENT, ZEPHYR
from weightfolders import facts_of

from audit.detectors.chat_template import DETECTOR
from audit.evidence import Evidence, Hit
from scanner.hub import Hub
from scanner.side.records import SideFacts
from scanner.side.templates import compare_templates

NOTES = {"info", "low"}


def looked_at(tmp_path: Path, base: str | None, candidate: str, place: str = "chat_template.jinja") -> Evidence:
    folders = tmp_path / "base", tmp_path / "candidate"
    for folder, text in zip(folders, (base, candidate), strict=True):
        folder.mkdir()
        if text is None:
            continue
        if place == "chat_template.jinja":
            (folder / place).write_text(text, encoding="utf-8")
        else:
            (folder / place).write_text(json.dumps({"chat_template": text}), encoding="utf-8")
    skips = []
    templates = compare_templates(facts_of(folders[1]), facts_of(folders[0]), Hub("http://127.0.0.1:9"), skips)
    assert not skips
    return dataclasses.replace(evidence_for.evidence(None), side=SideFacts(templates=templates))


def test_the_counts_in_the_rule_book_are_these():
    assert Counter(rule for rule, _, _ in ATTACKS.values()) == {"HA701": 13, "HA702": 9, "HA703": 6}
    assert len(INNOCENT) == 24


def judged(of: Evidence) -> list[Hit]:
    found = DETECTOR.run(of)
    hits = [hit for hit in found if isinstance(hit, Hit)]
    assert all(hit.finding for hit in hits)
    return hits


@pytest.mark.parametrize("name", INNOCENT)
def test_an_innocent_template_is_a_note_at_most(tmp_path, name):
    base, candidate = INNOCENT[name]
    hits = judged(looked_at(tmp_path, base, candidate))
    assert all(hit.score == 0 for hit in hits), hits
    assert {hit.finding.severity for hit in hits if hit.finding} <= NOTES, hits


@pytest.mark.parametrize("name", ATTACKS)
def test_a_planted_template_is_told(tmp_path, name):
    rule, base, candidate = ATTACKS[name]
    assert base != candidate, "the plant did not take"
    of = looked_at(tmp_path, base, candidate)
    told = {hit.rule_id: hit for hit in judged(of)}
    assert rule in told, told
    assert told[rule].score >= of.profile.value("policy.review_score")
    assert evidence_for.report(of).verdict.outcome in {"review", "fail"}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_planted_template_is_told_without_a_base_as_well(tmp_path, name):
    rule, _, candidate = ATTACKS[name]
    assert rule in {hit.rule_id for hit in judged(looked_at(tmp_path, None, candidate))}


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json", "processor_config.json"])
def test_templates_are_found_where_they_stand(tmp_path, place):
    rule, base, candidate = ATTACKS["keyword"]
    (hit,) = judged(looked_at(tmp_path, base, candidate, place))
    assert hit.rule_id == rule
    assert hit.finding is not None
    assert hit.finding.locations[0].file == place


def test_a_changed_template_without_more_is_ha704(tmp_path):
    (hit,) = judged(looked_at(tmp_path, ZEPHYR, CHATML))
    assert (hit.rule_id, hit.score) == ("HA704", 0.0)


def test_calls_of_unknown_functions_alone_are_a_note(tmp_path):
    (hit,) = judged(looked_at(tmp_path, ZEPHYR, ZEPHYR + "{{ my_helper(messages) }}"))
    assert hit.finding is not None
    assert (hit.rule_id, hit.score, hit.finding.severity) == ("HA703", 0.0, "low")


def test_what_the_base_has_is_not_the_candidates(tmp_path):
    _, _, planted = ATTACKS["keyword"]
    assert not [hit for hit in judged(looked_at(tmp_path, planted, planted + " ")) if hit.score]


@pytest.mark.parametrize(
    "text", ["{% if %}", "{{ " + "(" * 900 + "a", "x" * 70_000, "{{ a }}" * 2_001, "{% if a %}" * 300]
)
def test_a_template_that_cannot_be_read_is_never_clean(tmp_path, text):
    (tmp_path / "chat_template.jinja").write_text(text)
    skips = []
    (found,) = compare_templates(facts_of(tmp_path), None, Hub("http://127.0.0.1:9"), skips)
    of = dataclasses.replace(evidence_for.evidence(None), side=SideFacts(templates=(found,)))
    (hit,) = judged(of)
    assert (hit.rule_id, hit.score) == ("HA705", of.profile.value("HA705.score"))
    assert len(skips) == 1


def test_fillers_hide_nothing(tmp_path):
    rule, base, candidate = ATTACKS["instruction in the user's turn"]
    fillers = "".join(f"{{% if tools %}}Tool text {i} of many words here.{{% endif %}}" for i in range(150))
    assert rule in {hit.rule_id for hit in judged(looked_at(tmp_path, base, fillers + candidate))}
