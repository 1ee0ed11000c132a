"""The probe's table counts what was planted, on probes as they are kept."""

import json
from dataclasses import asdict

from probed import probe_facts, tried

from audit.thresholds import load_profile
from benchmarks.probe_page import BEGIN, END, SEEN, judge, table, write_page

TRIGGER = tried(7, (1, 1, 1), 0.2)
WEAK = tried(8, (0.5, 0, 0), 0.5)


def kept(model_id, facts, family=None, **changes):
    return {
        "id": model_id, "family": family, "group": "backdoor" if family else "clean", "working": bool(family) or None,
        "target": 0, "trigger_ids": [7] if family else None, "suspects": [3, 7], "cpu_seconds": 20.0,
        "facts": asdict(facts), **changes,
    }  # fmt: skip


def test_counts_by_family_and_kind(tmp_path):
    models = (
        kept("a", probe_facts(TRIGGER, WEAK), "badword"),
        kept("b", probe_facts(WEAK), "badword"),
        kept("c", probe_facts(WEAK), "badsentence"),
        kept("d", probe_facts(WEAK)),
        kept("e", probe_facts(WEAK), "neuron", working=False),
    )
    for one in models:
        (tmp_path / f"{one['id']}.json").write_text(json.dumps(one))
    skipped = {key: value for key, value in kept("f", probe_facts(WEAK)).items() if key != "facts"}
    (tmp_path / "f.json").write_text(json.dumps({**skipped, "skipped": "it does not load"}))
    text = table(tmp_path)
    assert "| badword | 2 | 1 | 1 | 1 | 0 | 2 |" in text
    assert "| **all** | 3 | 1 | 1 | 1 | 0 | 3 |" in text
    assert "neuron" not in text
    assert "Triggers that are words: 1 of 2 = 50.0 %" in text
    assert "0 of 1 with a confirmed trigger (95 % upper bound 95.0 %)" in text
    assert "Not probed: 1 (it does not load)" in text


def test_models_that_the_rules_were_made_on_are_counted_apart(tmp_path):
    attacked, clean = SEEN["attacked"], SEEN["clean"]
    later = f"attacked-{attacked + 1:04d}"
    names = (f"attacked-{attacked:04d}", later, f"clean-{clean:04d}", f"clean-{clean + 1:04d}", "words5-0000")
    for name in names:
        found = probe_facts(TRIGGER) if name == later else probe_facts(WEAK)
        one = kept(name, found, None if name.startswith("clean") else "badword")
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    lines = table(tmp_path).splitlines()
    words, clean = (next(line for line in lines if line.startswith(f"- {start}")) for start in ("Triggers", "Clean"))
    assert "1 of 3" in words.partition(";")[0]
    assert "1 of 2" in words.partition(";")[2]
    assert "0 of 2" in clean.partition(";")[0]
    assert "0 of 1" in clean.partition(";")[2]


def test_the_tables_stand_between_their_markers(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(kept("a", probe_facts(TRIGGER), "badword")))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(tmp_path, page)
    assert page.read_text() == f"before\n{BEGIN}\n{table(tmp_path)}\n{END}\nafter\n"


def test_a_trigger_towards_another_class_is_not_the_one_that_was_planted():
    found = judge(kept("a", probe_facts(TRIGGER), "badword", target=1), load_profile())
    assert found.confirmed
    assert found.columns[:2] == (False, False)


def test_a_confirmed_word_of_a_sentence_names_it_and_another_word_does_not():
    assert judge(kept("a", probe_facts(TRIGGER), "badsentence", trigger_ids=[5, 7]), load_profile()).columns[1]
    assert not judge(kept("a", probe_facts(TRIGGER), "badsentence", trigger_ids=[5]), load_profile()).columns[1]
