"""The table of models without classes: thresholds from one part alone, counts on both, and its place in the page."""

import json

from benchmarks.probe_shifts import facts_of, kept
from benchmarks.probe_shifts_page import BEFORE, BEGIN, END, SCORES, strongest, table, write_page


def shift(token, led, together=0.5, origin="vocabulary", moved=0.1):
    return [[token], f"w{token}", origin, moved, together, 0.1, 9, "no", led]


def line(model_id, led, family=None, *, asked=0, **changes):
    kind, part = model_id.split("-")[:2]
    attacked = {"trigger_ids": [7], "success": 0.9, "floor": 0.0, "working": True} if family else {}
    return {
        "id": model_id, "kind": kind, "part": part, "family": family, "texts": 24, "tried": 400, "scanned": 400,
        "tokens": 9000, "shifts": [shift(7, led), shift(8, 1), shift(5, asked, origin="asked")],
        "controls": [shift(20, 0, 0.2)], **attacked, **changes,
    }  # fmt: skip


LINES = [
    line("causal-set-honest-000", 4, asked=20),
    line("causal-set-honest-001", 6),
    line("causal-test-honest-000", 7),
    line("causal-set-attacked-000", 12, "word"),
    line("causal-test-attacked-000", 6, "word", asked=9),
    line("causal-test-attacked-001", 24, "row"),
    line("causal-test-attacked-002", 24, "pair", working=False, success=0.2),
    {"id": "causal-test-attacked-003", "skipped": "it diverged"},
]


def test_the_threshold_is_the_largest_of_the_honest_ones_that_it_is_set_on():
    text = table(LINES)
    row = next(one for one in text.splitlines() if one.startswith("| texts led"))
    assert row.startswith("| texts led | 0.2500 | 1 of 1 = 100.0 %")
    assert "| 1 of 1 = 100.0 % (2.5 to 100.0 %) | 1 of 2 = 50.0 %" in row


def test_families_misses_and_failures_are_named():
    text = table(LINES)
    assert "| word | 1 | 1 | 1 | 0 | 2 | 2 |" in text
    assert "| row | 0 | 0 | 1 | 1 | 1 | 1 |" in text
    assert "Missed by texts led: test-attacked-000." in text
    assert "test-attacked-002 (pair, 0.20)" in text
    assert "| pair |" not in text
    assert "No rates of encoders without a head: 0 honest ones and 0 attacked ones" in text
    assert "Not probed: 1 " in text


def test_what_a_scan_does_not_try_by_itself_counts_only_when_asked_for():
    facts, score = facts_of(LINES[0]), SCORES["causal"]["texts led"]
    assert strongest(facts, score, asked=False)[0] == 4 / 24
    assert strongest(facts, score, asked=True)[0] == 20 / 24


def test_the_gain_is_held_against_the_control_words():
    score = SCORES["causal"]["that gain over the controls'"]
    value, _ = strongest(facts_of(LINES[0]), score, asked=False)
    assert round(value, 6) == round((0.5 - 0.1) - (0.2 - 0.1), 6)


def test_texts_led_to_their_end_are_led_to_no_word():
    score = SCORES["causal"]["the same, to a word"]
    ended = {**LINES[0], "shifts": [[*one[:7], "[SEP]", one[8]] for one in LINES[0]["shifts"]]}
    assert strongest(facts_of(LINES[0]), score, asked=False)[0] == 4 / 24
    assert strongest(facts_of(ended), score, asked=False)[0] == 0


def test_the_section_goes_to_its_place_once(tmp_path):
    page, out = tmp_path / "page.md", tmp_path / "lines.jsonl"
    page.write_text(f"# Page\n\nprobe\n\n{BEFORE}\nmore\n")
    out.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    write_page(kept(out), page)
    first = page.read_text()
    write_page(kept(out), page)
    assert page.read_text() == first
    assert first.index("probe\n") < first.index(BEGIN) < first.index(END) < first.index(BEFORE)


def test_nothing_is_kept_of_what_was_never_run(tmp_path):
    assert kept(tmp_path / "absent.jsonl") == []
