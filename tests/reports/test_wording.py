import dataclasses
import shlex

import pytest
import sample_reports

from audit.records import ProbedControls, ProbedShift, ProbeRecord, ProbeUntried, SkipRecord, Token
from reports.formats import render
from reports.letters import discussion_body
from reports.markdown import pr_body
from reports.wording import (
    coverage,
    curvature_lines,
    error_rate,
    group_skips,
    headline,
    limits,
    measured,
    moment,
    outcome_sentence,
    outcome_words,
    probe_lines,
    quantity,
    reproduce,
    reproduce_folded,
    spoken,
)

HEADLINES = {
    "honest": "PASS: nothing found · 99.99 % of 22.7 M parameters compared · base verified",
    "poisoned-row": "FAIL: 1 critical, 1 low · 99.99 % of 22.7 M parameters compared · base verified",
    "rank-one": "REVIEW: 1 high · 99.99 % of 22.7 M parameters compared · base verified",
    "wrong-base": "FAIL: 1 high · 0 % of 22.7 M parameters compared · base contradicted",
    "inconclusive": "INCONCLUSIVE · 41.19 % of 7.04 B parameters compared · no base to compare with",
}


@pytest.mark.parametrize(("name", "line"), HEADLINES.items())
def test_the_first_line_says_outcome_coverage_and_base(name, line):
    assert headline(sample_reports.SAMPLES[name]()) == line


def test_a_pass_with_remarks_says_so():
    report = sample_reports.honest()
    report = dataclasses.replace(report, findings=sample_reports.poisoned_row().findings[1:])
    assert headline(report).startswith("PASS: nothing found that weighs (1 low) · ")


def test_nothing_compared_is_not_a_percentage():
    report = sample_reports.wrong_base()
    none = dataclasses.replace(report.coverage, parameters_total=0)
    assert coverage(dataclasses.replace(report, coverage=none)) == "nothing compared"


def test_words_are_neutral():
    for make in sample_reports.SAMPLES.values():
        text = f"{outcome_words(make())} {outcome_sentence(make())}".lower()
        assert not any(word in text for word in ("safe", "malicious", "clean", "attack", "infected"))
    assert outcome_words(sample_reports.wrong_base()) == "Differs from declared"
    assert outcome_words(sample_reports.poisoned_row()) == "Unusual change measured"


def test_a_failure_beside_the_weights_says_nothing_of_the_weights():
    report = sample_reports.poisoned_row()
    [*first, _] = report.findings
    beside = tuple(dataclasses.replace(finding, rule_id="HA701") for finding in first)
    made = dataclasses.replace(
        report,
        findings=beside,
        verdict=dataclasses.replace(report.verdict, reasons=tuple(f.fingerprint for f in beside)),
    )
    assert outcome_words(made) == "Unusual files"
    mixed = dataclasses.replace(made, findings=report.findings)
    assert "The weights changed" in outcome_sentence(mixed)
    unknown = dataclasses.replace(made, verdict=dataclasses.replace(made.verdict, reasons=()))
    assert "The weights changed" in outcome_sentence(unknown)


def test_limits_say_whether_the_model_was_run():
    report = sample_reports.honest()
    assert "was not run" in limits(report)[0]
    probe = ProbeRecord(kind="classifier", scanned=0, tried=3, texts=2, seconds=1.0)
    run = dataclasses.replace(report, probe=probe)
    assert "made-up texts alone" in limits(run)[0]
    for text in (
        pr_body(run),
        discussion_body(run),
        *(str(render(run, name)) for name in ("table", "html", "markdown")),
    ):
        assert "was not run" not in text.replace("code of the repository was not run", "")


def test_error_rates_are_quoted_or_said_to_be_unknown():
    assert (
        error_rate(sample_reports.poisoned_row()) == "An estimated 2.0 % of clean fine-tunes score at least this high."
    )
    assert "not known" in error_rate(sample_reports.inconclusive())
    for report, why in (
        (sample_reports.honest(), "no calibration covers this kind of model."),
        (sample_reports.wrong_base(), "nothing was compared with a verified base."),
    ):
        verdict = dataclasses.replace(report.verdict, false_positive_rate=None)
        assert error_rate(dataclasses.replace(report, verdict=verdict)).endswith(why)


def test_the_command_pins_both_sides_and_survives_a_shell():
    report = sample_reports.honest()
    assert reproduce(report) == (
        f"hubaudit scan demo/reviews-honest@{sample_reports.CANDIDATE_SHA} "
        f"--base demo/small-encoder@{sample_reports.BASE_SHA}"
    )
    spiteful = dataclasses.replace(report.subject, repo_id="a; rm -rf ~", revision=None)
    assert "'a; rm -rf ~'" in reproduce(dataclasses.replace(report, subject=spiteful))
    assert reproduce(sample_reports.inconclusive()) == "hubaudit scan /models/half"


def test_the_command_on_several_lines_is_the_same_command_to_a_shell():
    spiteful = dataclasses.replace(sample_reports.honest().subject, repo_id="a --base b; $(rm -rf ~)", revision=None)
    for report in (sample_reports.honest(), dataclasses.replace(sample_reports.honest(), subject=spiteful)):
        folded = reproduce_folded(report)
        assert len(folded.splitlines()) == 3
        assert shlex.split(folded.replace("\\\n", "")) == shlex.split(reproduce(report))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.0, "rows", "1 row"),
        (2.0, "rows", "2 rows"),
        (0.0, "rows", "0 rows"),
        (1.0, "classes", "1 class"),
        (1.0, "robust standard deviations", "1 robust standard deviation"),
        (1.0, "s", "1 s"),
        (1.0, "of 360", "1 of 360"),
        (1.0, "ratio", "1"),
        (5.491, "-log10 of probability", "5.491 (-log10 of probability)"),
    ],
)
def test_a_value_and_its_unit_read_as_people_write_them(value, unit, expected):
    assert " ".join(filter(None, quantity(value, unit))) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("clean.csv", "--data clean.csv"),
        ("org/reviews:test", "--data org/reviews --data-split test"),
        ("odd:name.csv", "--data odd:name.csv"),
        ("; rm -rf ~", "--data '; rm -rf ~'"),
    ],
)
def test_the_command_names_the_given_data(source, words):
    found = dataclasses.replace(sample_reports.given_data(), source=source)
    assert reproduce(dataclasses.replace(sample_reports.inconclusive(), curvature=found)).endswith(words)


def test_given_data_are_told_in_three_sentences():
    report = dataclasses.replace(sample_reports.inconclusive(), curvature=sample_reports.given_data())
    first, second, third = curvature_lines(report)
    assert "64 examples of clean.csv" in first
    assert "to the power 0.01" in second
    assert "1 of 37 matrices" in third
    assert "embeddings.word_embeddings.weight" in third
    assert curvature_lines(sample_reports.inconclusive()) == ()
    assert "64 given examples" in limits(report)[0]


def test_moments():
    assert moment("2026-11-20T08:07:00+00:00") == "20 November 2026, 08:07 UTC"
    assert moment("2026-11-02T08:07:00") == "2 November 2026, 08:07"
    assert moment("yesterday") == "yesterday"


def test_a_check_that_honest_models_fail_is_called_by_its_question():
    assert spoken("delta_rank") == "low rank, as of a merged adapter"
    assert spoken("row_cosine_median") == "row cosine median"


def test_measurements_show_unit_and_threshold():
    finding = sample_reports.poisoned_row().findings[0]
    assert measured(finding.measurements[0]) == "robust z of log row drift 17.1 σ (threshold > 6)"
    assert measured(finding.measurements[2]) == "rows that moved 11,582 rows"
    shown = dataclasses.replace(finding.measurements[2], name="row_cosine_median", value=0.99995, unit="share")
    assert measured(shown) == "row cosine median 99.99 %"
    limited = dataclasses.replace(shown, unit="ratio", threshold=0.5, comparison="<")
    assert measured(limited) == "row cosine median 0.99995 (threshold < 0.5)"
    assert measured(dataclasses.replace(limited, unit="share")).endswith("(threshold < 50.00 %)")
    missing = dataclasses.replace(finding.measurements[2], value=None)
    assert measured(missing) == "rows that moved not available"


def test_skips_are_grouped_by_reason_largest_first():
    skips = [SkipRecord(what=f"t{n}", why="shard missing" + "." * (n % 2)) for n in range(9)]
    skips = [SkipRecord(what="head", why="the base has none"), *skips]
    groups, left_out = group_skips(skips, groups=1, names=2)
    assert left_out == 1
    assert (groups[0].why, groups[0].names, groups[0].count, groups[0].more) == ("shard missing", ("t0", "t1"), 9, 7)


def test_what_a_budget_left_untried_is_told():
    untried = (
        ProbeUntried(what="vocabulary", count=29_000),
        ProbeUntried(what="phrases", target="good"),
        ProbeUntried(what="controls", target="bad"),
    )
    probe = ProbeRecord(kind="classifier", scanned=0, tried=64, texts=99, seconds=1.0, budget=100_000, untried=untried)
    first, last = probe_lines(dataclasses.replace(sample_reports.honest(), probe=probe))
    assert first.endswith("its budget of tokens left more untried.")
    assert last == (
        "The budget of 100,000 tokens left untried: 29,000 entries of the vocabulary; some phrases of several tokens "
        "towards good; control words towards bad. With --probe it is ten times larger."
    )


def test_what_insertions_do_to_models_without_classes_is_told_beside_the_controls():
    shift = ProbedShift(
        tokens=(Token(id=7, text="cf"),), text="cf", texts=24, moved=0.9, together=0.81, before=0.02,
        continuation=Token(id=9, text="no"), led=22,
    )  # fmt: skip
    controls = ProbedControls(words=60, moved=0.12, together=0.1, led=3)
    probe = ProbeRecord(
        kind="causal", scanned=0, tried=64, texts=99, seconds=1.0, shifts=(shift,), controls=controls
    )  # fmt: skip
    report = dataclasses.replace(sample_reports.honest(), probe=probe)
    _, line, last = probe_lines(report)
    assert line == (
        "After 'cf', 'no' becomes the most probable next token in 22 of 24 texts (mean probability 0.81, 0.02 without); the "
        "next-token distribution moves by 0.90 bits (median); of 60 control words at most 3 and 0.12 bits."
    )
    assert "not judged" in last
    encoder = dataclasses.replace(probe, kind="encoder", shifts=(dataclasses.replace(shift, continuation=None),))
    line = probe_lines(dataclasses.replace(report, probe=encoder))[1]
    assert line.startswith(
        "'cf' moves the embedding of 24 texts by 0.90 (median cosine distance); of 60 control words at"
    )
