"""The baseline: what a file may say, and what its entries do to a verdict."""

import dataclasses
import json
from datetime import date

import evidence_for
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.detectors.lineage import CONTRADICTED
from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import AuditReport, Finding, Location, Measurement, RuntimeRecord
from audit.run import audit
from audit.suppressions import BadBaseline, Entry, parse_baseline, suppress
from scanner.records import Lineage

DAY = date(2026, 11, 20)
PRINT = "8f3a1c0b5d7e9f21"
ENTRY = f"""# accepted by the platform team
suppressions:
  - fingerprint: {PRINT}
    reason: >
      Retrained on purpose,
      see issue 12.
    expires: 2027-06-30
  - fingerprint: "0123456701234567"
    reason: known
    expires: "2026-11-20"
    model: org/name
"""


def entry(fingerprint: str = PRINT, *, expires: date = DAY, model: str | None = None) -> Entry:
    return Entry(fingerprint=fingerprint, reason="known", expires=expires, model=model, line=1)


def hit(fingerprint: str = PRINT, *, rule: str = "HA201", score: float = 0.9, tensor: str | None = None) -> Hit:
    finding = Finding(
        rule_id=rule,
        severity="high",
        confidence="high",
        title="t",
        explanation="e",
        remedy="r",
        fingerprint=fingerprint,
        locations=(Location(file="a", tensor=tensor),),
        measurements=(Measurement(name="m", value=1.0),),
    )
    return Hit(rule_id=rule, score=score, value=1.0, finding=finding)


def judged(*hits: Hit, accepted: tuple[Entry, ...] = (), lineage: Lineage | None = None) -> AuditReport:
    """The report of an audit in which one detector says exactly this."""
    evidence = evidence_for.evidence(None)
    if lineage is not None:
        evidence = dataclasses.replace(evidence, lineage=lineage)

    def run(_: Evidence) -> tuple[Hit, ...]:
        return hits

    rules = tuple(Rule(id=one, title="t", severity="high") for one in dict.fromkeys(h.rule_id for h in hits))
    detector = Detector(name="said", rules=rules, run=run, needs_drift=False, needs_verified_base=False)
    return audit(
        evidence,
        created_at="2026-11-20T23:59:59Z",
        tool_version="0",
        runtime=RuntimeRecord(seconds=0.0, peak_rss_bytes=0, requests=0),
        detectors=(detector,),
        accepted=accepted,
    )


def test_a_file_is_read_with_its_lines() -> None:
    first, second = parse_baseline(ENTRY)
    assert first == Entry(
        fingerprint=PRINT, reason="Retrained on purpose, see issue 12.", expires=date(2027, 6, 30), model=None, line=3
    )
    assert (second.model, second.line, second.expires) == ("org/name", 8, date(2026, 11, 20))


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_too(indent: int | str | None) -> None:
    content = {"suppressions": [{"fingerprint": PRINT, "reason": "a\tb \u00e9", "expires": "2027-06-30"}]}
    (read,) = parse_baseline(json.dumps(content, indent=indent))
    assert (read.fingerprint, read.reason) == (PRINT, "a b \u00e9")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "suppressions:\n", "suppressions: []\n", "{}"])
def test_an_empty_file_accepts_nothing(text: str) -> None:
    assert parse_baseline(text) == ()


GOOD = {"fingerprint": PRINT, "reason": "known", "expires": "2027-06-30"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "line 1"),
        ("suppressions:\n  - fingerprint: [}", "line 2"),
        ("- fingerprint: x", "line 1"),
        ("suppress: []", "holds one key, suppressions"),
        ("suppressions: []\nsuppressions: []", "one key"),
        ("suppressions: yes", "is a list"),
        ("suppressions:\n\n  - text", "line 3: an entry is a mapping"),
        (json.dumps({"suppressions": [GOOD | {"resaon": "x"}]}), "did you mean reason?"),
        (json.dumps({"suppressions": [GOOD | {"reason": "  "}]}), "line 1: reason is missing"),
        (json.dumps({"suppressions": [GOOD | {"reason": ["x"]}]}), "reason is missing"),
        (json.dumps({"suppressions": [GOOD | {"expires": None}]}), "expires is missing"),
        (json.dumps({"suppressions": [GOOD | {"expires": "2027-02-30"}]}), "expires is missing or is no day"),
        (json.dumps({"suppressions": [GOOD | {"expires": "20270630"}]}), "is no day"),
        (json.dumps({"suppressions": [GOOD | {"expires": "2027-W26-3"}]}), "is no day"),
        (json.dumps({"suppressions": [GOOD | {"fingerprint": "HA201"}]}), "copy it from the report"),
        ("suppressions:\n  - {fingerprint: 1234567890123456, reason: x, expires: 2027-06-30}", "in quotes"),
        (json.dumps({"suppressions": [GOOD | {"model": 7}]}), "model is the name"),
        (json.dumps({"suppressions": [GOOD, GOOD]}, indent=1), "line 8: 8f3a1c0b5d7e9f21 stands in line 3 already"),
        ("suppressions: &a [*a]", "inside itself"),
        ("suppressions: !!python/object/apply:os.system [echo]", "not valid YAML"),
    ],
)
def test_a_malformed_file_is_one_sentence_that_names_the_line(text: str, said: str) -> None:
    with pytest.raises(BadBaseline) as caught:
        parse_baseline(text, "b.yml")
    message = str(caught.value)
    assert message.startswith("b.yml")
    assert said in message
    assert "line " in message
    assert message.isprintable()


@given(st.text(max_size=200) | st.text(max_size=80).map(lambda text: f"suppressions:\n  - {text}"))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        entries = parse_baseline(text)
    except BadBaseline as error:
        entries, said = (), str(error)
    else:
        said = ""
    assert said.isprintable()
    assert all(entry.reason for entry in entries)


def test_an_accepted_finding_is_marked_and_does_not_count() -> None:
    report = judged(hit(score=0.9), accepted=(entry(),))
    (finding,) = report.findings
    assert finding.suppression is not None
    assert (finding.suppression.reason, finding.suppression.expires) == ("known", "2026-11-20")
    assert report.verdict.outcome not in {"review", "fail"}
    assert report.verdict.reasons == ()
    assert report.verdict.score == 0.9
    assert "1 finding is accepted by the baseline and did not count; the score includes them." in report.verdict.notes


def test_what_is_not_accepted_still_decides() -> None:
    report = judged(hit(), hit("ab" * 8, rule="HA301", score=0.6), accepted=(entry(),))
    assert report.verdict.outcome == "review"
    assert report.verdict.reasons == ("ab" * 8,)


def test_another_rule_on_the_same_tensor_is_not_swallowed() -> None:
    hits = (hit(tensor="w"), hit("ab" * 8, rule="HA301", tensor="w"))
    assert [f.rule_id for f in judged(*hits).findings] == ["HA201"], "one finding per tensor"
    report = judged(*hits, accepted=(entry(),))
    assert {f.rule_id: f.suppression is None for f in report.findings} == {"HA201": False, "HA301": True}
    assert report.verdict.outcome == "fail"


def test_an_expired_entry_is_reported_and_the_finding_counts() -> None:
    report = judged(hit(), accepted=(entry(expires=date(2026, 11, 19)),))
    assert report.findings[0].suppression is None
    assert report.verdict.outcome == "fail"
    assert any("HA201 (8f3a1c0b5d7e9f21) ended on 2026-11-19" in note for note in report.verdict.notes)


def test_unused_entries_are_reported_but_not_those_of_other_models() -> None:
    unused = tuple(entry(f"{number:016x}") for number in range(7))
    other = entry("cd" * 8, model="other/model")
    said = suppress([hit()], (*unused, other), model="org/name", today=DAY).notes
    (note,) = said
    assert note.startswith("Entries of the baseline that match no finding: 0000000000000000, 0000000000000001, ")
    assert note.endswith("0000000000000004 and 2 more.")


def test_an_entry_for_another_model_accepts_nothing() -> None:
    marked = suppress([hit()], (entry(model="other/model"),), model="org/name", today=DAY)
    assert marked.hits == (hit(),)
    assert marked.notes == ()


def test_the_entry_for_this_model_comes_before_the_one_for_any() -> None:
    old = entry(expires=date(2020, 1, 1))
    for order in ((old, entry(model="org/name")), (entry(model="org/name"), old)):
        (one,) = suppress([hit()], order, model="org/name", today=DAY).hits
        assert one.finding is not None
        assert one.finding.suppression is not None


def test_an_accepted_wrong_base_is_not_a_pass() -> None:
    lineage = evidence_for.lineage(evidence_for.repo(), evidence_for.repo("org/base"), status="contradicted")
    refuted = hit(rule=CONTRADICTED.id, score=1.0)
    assert judged(refuted, lineage=lineage).verdict.outcome == "fail"
    assert judged(refuted, lineage=lineage, accepted=(entry(),)).verdict.outcome == "inconclusive"
    # Without the finding that could be accepted, a contradicted base fails as ever.
    assert judged(hit("ab" * 8), lineage=lineage, accepted=(entry(),)).verdict.outcome == "fail"
