"""Auto: what calls for which step, what is left alone, and that a stopped run goes on."""

from dataclasses import dataclass, replace

import pico
import pytest
import sample_reports
import torch
from purevictims import TRIGGER, TRIGGER_ID, clean_data, job_for, rates, victim

from audit.detectors import confirmed_trigger
from pipelines.progress import Quiet
from pipelines.purify import auto, inertness, unlearn
from pipelines.purify.catalogue import PURIFIERS
from pipelines.purify.checkpoint import open_checkpoint
from pipelines.purify.deciding import deciding
from pipelines.purify.job import PurifyFailed, PurifyResult, WholeTensors
from pipelines.purify.writer import write_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy(unlearn.UnlearnOptions):
    inert: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Loud(Toy):
    silence: bool = False


@pytest.fixture(autouse=True)
def toy_vocabulary(monkeypatch):
    """The toy vocabulary has 320 entries: what is rare and what is inert has to be told anew."""
    monkeypatch.setattr(inertness, "COMMON", 250)
    monkeypatch.setattr(inertness, "DONORS", pico.words()[100:110])
    monkeypatch.setattr(unlearn, "UnlearnOptions", Toy)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NO_PROBE = auto.AutoOptions(probe=False)


def quiet_report(outcome: str = "pass"):
    report = sample_reports.honest()
    return replace(report, findings=(), verdict=replace(report.verdict, outcome=outcome))


def test_a_model_in_which_nothing_is_found_is_not_touched(tmp_path) -> None:
    result = auto.purify(job_for(tmp_path, report=quiet_report(), options=NO_PROBE))
    assert result.edits.names == frozenset()
    assert "Nothing was found" in result.chosen


def test_a_named_trigger_is_unlearnt_and_the_outcome_can_be_written(tmp_path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    result = auto.purify(job_for(work, triggers=(TRIGGER,), options=NO_PROBE))
    assert [step["method"] for step in result.log["steps"]] == ["unlearn"]
    out.mkdir()
    write_model(open_checkpoint(victim().folder), result.edits, out, Quiet())
    accuracy, success = rates(pico.load(out))
    assert accuracy > 0.9
    assert success < 0.3


def test_a_stopped_run_takes_up_the_steps_that_are_done(tmp_path, monkeypatch) -> None:
    job = job_for(tmp_path, triggers=(TRIGGER,), options=NO_PROBE)
    first = auto.purify(job)
    monkeypatch.setitem(PURIFIERS, "unlearn", replace(PURIFIERS["unlearn"], run=None))  # would fail if it were run
    again = auto.purify(job)
    assert again.chosen == first.chosen
    assert again.edits.names == first.edits.names


def test_a_confirmed_trigger_of_the_report_is_enough_for_unlearning(tmp_path) -> None:
    report = sample_reports.poisoned_row()
    finding = report.findings[0]
    place = replace(finding.locations[0], tokens=(replace(finding.locations[0].tokens[0], id=TRIGGER_ID),))
    confirmed = replace(finding, rule_id=confirmed_trigger.TRIGGER.id, locations=(place,), suppression=None)
    tokenizer = pico.make_tokenizer()
    assert unlearn.confirmed_triggers(replace(report, findings=(confirmed,)), tokenizer) == (TRIGGER,)
    assert unlearn.confirmed_triggers(replace(report, findings=(replace(confirmed, rule_id="HA901"),)), tokenizer) == ()
    assert unlearn.confirmed_triggers(None, tokenizer) == ()


def test_a_silenced_row_that_a_scan_finds_is_given_back_and_the_trigger_tuned_away(tmp_path) -> None:
    """A silenced token reads as another one does: its row is a copy, which a scan takes for an edit."""
    own = pico.load(victim().folder).get_input_embeddings().weight

    def scan(result):
        name = next((n for n in result.edits.names if "word_embeddings" in n), None)
        silenced = name is not None and any(
            torch.equal(result.edits.panel(name, (0, len(own)), own)[TRIGGER_ID], own[k]) for k in range(TRIGGER_ID)
        )
        return quiet_report("fail" if silenced else "pass")

    job = job_for(tmp_path / "work", triggers=(TRIGGER,), report=quiet_report(), rescan=scan, options=NO_PROBE)
    result = auto.purify(job)
    (step,) = result.log["steps"]
    assert step["silenced"] == []
    assert [row["id"] for row in step["given_back"]] == [TRIGGER_ID]
    assert len(step["rounds"]) >= 1
    assert scan(result).verdict.outcome == "pass"
    out = tmp_path / "out"
    out.mkdir()
    write_model(open_checkpoint(victim().folder), result.edits, out, Quiet())
    accuracy, success = rates(pico.load(out))
    assert accuracy > 0.9
    assert success < 0.3


def test_a_last_resort_that_wakes_the_trigger_is_taken_back(tmp_path, monkeypatch) -> None:
    """The probe of a toy is played: it names the trigger first, is content, and names it again after the last resort."""
    seen = []

    def search(folder, phrases, whole):
        seen.append((folder.name, whole))
        return {TRIGGER: (TRIGGER_ID,)} if whole or "e-pur" in folder.name else {}

    monkeypatch.setattr(auto, "_searcher", lambda job: search)
    failing = quiet_report("fail")
    result = auto.purify(job_for(tmp_path, report=failing, rescan=lambda _: failing))
    last = result.log["steps"][-1]
    assert (last["method"], last["done"]) == ("e-pur", False)
    assert "works again" in last["why"]
    assert "Reset" not in result.chosen
    assert seen[-1][0].endswith("e-pur")
    assert "e-pur" not in result.edits.checkpoint.folder.name


def test_the_last_resort_is_taken_only_when_a_scan_still_fails(tmp_path) -> None:
    failing, passing = quiet_report("fail"), quiet_report("pass")
    taken = auto.purify(job_for(tmp_path / "a", report=failing, rescan=lambda _: failing, options=NO_PROBE))
    assert [step["method"] for step in taken.log["steps"] if step.get("chosen")] == ["e-pur"]
    spared = auto.purify(job_for(tmp_path / "b", report=passing, rescan=lambda _: passing, options=NO_PROBE))
    assert spared.edits.names == frozenset()


def test_only_what_decides_made_up_texts_is_found_deciding(tmp_path) -> None:
    harmless = pico.words()[200]
    job = job_for(tmp_path)
    assert deciding(job, victim().folder, (harmless, TRIGGER), least=0.9) == (TRIGGER,)
    assert deciding(job, victim().folder, (), least=0.9) == ()


def test_a_token_whose_row_was_only_a_trace_is_unlearnt_after_the_row_is_put_back(tmp_path, monkeypatch) -> None:
    """Restoring is played, with a row that was as the base has it: what a body learnt of a word stays."""
    name = "bert.embeddings.word_embeddings.weight"
    rows = pico.load(victim().folder).state_dict()[name].clone()
    log = {"restored": [{"tensor": name, "tokens": [{"id": TRIGGER_ID, "text": TRIGGER}, {"id": 5, "text": "##a"}]}]}

    def restore(job):
        return PurifyResult(edits=WholeTensors({name: rows}), chosen="Put back.", log=log)

    monkeypatch.setitem(PURIFIERS, "restore", replace(PURIFIERS["restore"], run=restore))
    result = auto.purify(job_for(tmp_path, report=sample_reports.poisoned_row(), options=NO_PROBE))
    first, *rest = result.log["steps"]
    assert first["still_decide"] == [TRIGGER]
    assert [step["triggers"] for step in rest if step["method"] == "unlearn"] == [[TRIGGER]]


def test_it_needs_something_to_go_by(tmp_path) -> None:
    with pytest.raises(PurifyFailed, match="--report"):
        auto.purify(job_for(tmp_path))


def test_clean_samples_are_used_where_unlearning_without_costs_too_much(tmp_path, monkeypatch) -> None:
    """The accuracy of a toy is played: it falls with the first try, and the second is with the samples."""
    monkeypatch.setattr(unlearn, "UnlearnOptions", Loud)
    job = job_for(tmp_path / "kept", triggers=(TRIGGER,), options=NO_PROBE, data=clean_data())
    kept = auto.purify(job)
    (step,) = kept.log["steps"]
    assert step["rounds"][0]["clean_samples"] == 0
    assert step["accuracy_after"] >= step["accuracy_before"] - job.tuning.max_accuracy_loss
    told = iter((0.9, 0.5))
    monkeypatch.setattr(auto, "_accuracy", lambda walk: next(told))
    used = auto.purify(replace(job, work=tmp_path / "used"))
    first, second = used.log["steps"]
    assert (first["done"], second["done"]) == (False, True)
    assert "clean samples" in first["why"]
    assert second["rounds"][0]["clean_samples"] == len(job.data.tune)
    assert "without data" not in used.chosen
