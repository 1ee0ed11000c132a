"""``hubaudit purify`` as its users run it: over the Hub and on folders, to the end, interrupted, and back again."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pico
import purifying
import pytest
import sample_reports
import torch
from click.testing import CliRunner, Result
from localhub.server import LocalHub
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.cli import cli
from pipelines.purify.catalogue import PURIFIERS, purifier_named
from pipelines.purify.patch import PATCH_FILE
from pipelines.purify.proving import Reprobe, judge
from pipelines.purify.rewriting import file_digest
from pipelines.purify.writer import LOG_FILE
from pipelines.purify_cli import tell
from pipelines.purify_repo import Purified, PurifyRequest, purify
from reports.json_v1 import dump
from scanner.errors import BadReference
from scanner.hub import Hub

EMBEDDING = "bert.embeddings.word_embeddings.weight"


def run(*options: object, **environment: str) -> Result:
    done = CliRunner().invoke(cli, ["purify", *map(str, options)], env=environment)
    assert "Traceback" not in done.output
    return done


@pytest.fixture
def victim(tmp_path: Path) -> tuple[Path, Path]:
    """A fine-tune with one poisoned embedding row, and its base."""
    base, _ = purifying.family(tmp_path)
    return purifying.edited(tmp_path, lambda model: pico.poison_row(model, purifying.ROW)), base


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): file_digest(p) for p in folder.rglob("*") if p.is_file()}


def samples(path: Path, count: int = 40) -> Path:
    words = pico.words()
    lines = [f"{words[20 + i % 30]} {words[60 + i % 41]} {words[5 + i]},{i % 2}" for i in range(count)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def test_over_the_hub_from_the_card_to_the_folder_and_back(tmp_path: Path, hub_server: LocalHub) -> None:
    base, _ = purifying.family(tmp_path)
    candidate = purifying.edited(tmp_path, lambda model: pico.poison_row(model, purifying.ROW))
    hub_server.add_repo("pico/base", folder=base)
    sha = hub_server.add_repo("org/victim", folder=candidate)
    before = hub_server.paths("org/victim")
    out = tmp_path / "purified"
    done = run("org/victim", "--method", "restore", "--output", out, "--no-probe", "--threads", 1)
    assert done.exit_code == 3, done.output
    assert "Re-scan: fail before, pass after." in done.stdout
    assert "is not shown" in done.stdout
    log = json.loads((out / LOG_FILE).read_text())
    assert log["subject"]["repo_id"] == "org/victim"
    assert log["subject"]["revision"] == sha
    assert log["base"]["repo_id"] == "pico/base"
    assert (log["before"]["outcome"], log["after"]["outcome"]) == ("fail", "pass")
    assert [f["rule"] for f in log["before"]["findings"]] == ["HA201"]
    assert log["changed"]["tensors"] == {EMBEDDING: pico.HIDDEN}
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert torch.equal(
        model.get_input_embeddings().weight[purifying.ROW], pico.load(base).get_input_embeddings().weight[purifying.ROW]
    )
    assert len(AutoTokenizer.from_pretrained(out)) == pico.VOCABULARY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "edited", "honest", "purified"]

    back = run("--revert", out, "--output", tmp_path / "original")
    assert back.exit_code == 0, back.output
    original = digests(tmp_path / "original")
    assert original.pop(".gitattributes")
    assert original == digests(candidate)
    assert hub_server.paths("org/victim") == before


def test_a_folder_with_a_report_and_data(victim: tuple[Path, Path], tmp_path: Path) -> None:
    candidate, base = victim
    report = tmp_path / "report.json"
    report.write_bytes(dump(purifying.scan(candidate, base)))
    out = tmp_path / "purified"
    data = samples(tmp_path / "clean.csv")
    word = pico.words()[purifying.ROW]
    done = run(
        candidate, "--method", "restore", "--output", out, "--report", report, "--data", data,
        "--trigger-words", word, "--no-probe", "--threads", 1, "--seed", 4,
    )  # fmt: skip
    assert done.exit_code == 3, done.output
    assert "accuracy does not tell" in done.stdout
    assert f"Inserting {word!r}" in done.stdout
    log = json.loads((out / LOG_FILE).read_text())
    assert log["data"]["tune"] + log["data"]["select"] + log["data"]["test"] == 40
    assert log["evaluation"]["before"]["accuracy"]["n"] == log["data"]["test"]
    assert log["seed"] == 4


def test_the_same_command_gives_the_same_bytes(victim: tuple[Path, Path], tmp_path: Path) -> None:
    candidate, base = victim
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        options = ["--base", base, "--method", "e-pur", "--set", "rows=5", "--no-probe", "--threads", 1]
        assert run(candidate, "--output", out, *options).exit_code in {1, 3}
    first, second = (digests(out) for out in outs)
    assert first.pop(LOG_FILE) != ""
    second.pop(LOG_FILE)
    assert first == second


PROBED = Reprobe(made=True, tried=500)
FOUND = Reprobe(made=True, tried=500, confirmed=({"text": "cf", "to": "POSITIVE"},))


@pytest.mark.parametrize(
    ("probed", "code", "words"),
    [
        (PROBED, 0, "Nothing found in the result any more."),
        (FOUND, 1, "Something is still found in the result."),
        (Reprobe(made=False, why="--no-probe"), 3, "That it worked is not shown."),
    ],
)
def test_the_exit_code_says_what_the_words_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], probed: Reprobe, code: int, words: str
) -> None:
    made = sample_reports.honest()
    after = replace(made, findings=(), verdict=replace(made.verdict, outcome="pass"))
    gate = judge(sample_reports.poisoned_row(), after, probed, None)
    assert tell(Purified(folder=tmp_path, before=made, after=after, gate=gate, chosen="Put back.")) == code
    assert words in capsys.readouterr().out


def test_a_scan_of_the_result_knows_the_patch_for_what_it_is(victim: tuple[Path, Path], tmp_path: Path) -> None:
    candidate, base = victim
    out = tmp_path / "purified"
    run(candidate, "--base", base, "--method", "restore", "--output", out, "--no-probe", "--threads", 1)
    assert (out / PATCH_FILE).is_file()
    report = purifying.scan(out, base)
    assert not [skip for skip in report.coverage.skipped if PATCH_FILE in skip.what]
    assert [note for note in report.verdict.notes if note.startswith(f"{PATCH_FILE} holds what a purification")]
    assert not [note for note in purifying.scan(candidate, base).verdict.notes if PATCH_FILE in note]


def test_something_still_found_is_exit_code_one(victim: tuple[Path, Path], tmp_path: Path) -> None:
    """Two findings, of which the option lets one stand."""
    base = victim[1]

    def plant(model: Any) -> None:
        pico.poison_row(model, purifying.ROW)
        weight = pico.matrices(model, "mlp_out")[2]
        with torch.no_grad():
            weight += 0.004 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))

    candidate = purifying.edited(tmp_path / "other", plant)
    out = tmp_path / "purified"
    options = ["--base", base, "--set", "prominence=50", "--no-probe", "--threads", 1]
    done = run(candidate, "--method", "restore", "--output", out, *options)
    assert done.exit_code == 1, done.output
    assert "still found" in done.stdout
    log = json.loads((out / LOG_FILE).read_text())
    assert [left["rule"] for left in log["log"]["left"]] == ["HA301"]
    assert log["gate"]["standing"] == "still_found"


class Interrupting:
    """Presses Ctrl-C when a stage begins."""

    def __init__(self, at: str = "") -> None:
        self.at = at
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)
        if self.at and text.startswith(self.at):
            raise KeyboardInterrupt

    def advance(self, done: int, total: int) -> None:
        """Count nothing."""


@pytest.mark.parametrize("at", ["writing the new model", "scanning the result"])
def test_an_interrupted_run_leaves_no_model_and_goes_on(victim: tuple[Path, Path], tmp_path: Path, at: str) -> None:
    candidate, base = victim
    (tmp_path / "place").mkdir()
    out = tmp_path / "place" / "purified"
    request = PurifyRequest(model=str(candidate), base=str(base), method="e-pur", output=out, probe=False, threads=1)
    with pytest.raises(KeyboardInterrupt):
        purify(request, Hub(), progress=Interrupting(at))
    assert [path.name for path in out.parent.iterdir()] == [".purified.work"]
    (kept,) = (path for path in (out.parent / ".purified.work").rglob("result.safetensors"))
    stamp = kept.stat().st_mtime_ns
    again = Interrupting()
    purify(request, Hub(), progress=again)
    assert [path.name for path in out.parent.iterdir()] == ["purified"]
    fresh = tmp_path / "fresh"
    purify(
        PurifyRequest(model=str(candidate), base=str(base), method="e-pur", output=fresh, probe=False, threads=1),
        Hub(),
    )
    assert file_digest(out / "model.safetensors") == file_digest(fresh / "model.safetensors")
    assert stamp > 0


def test_what_was_kept_is_used_only_for_the_same_job(victim: tuple[Path, Path], tmp_path: Path) -> None:
    candidate, base = victim
    (tmp_path / "place").mkdir()
    out = tmp_path / "place" / "purified"

    def request(seed: int) -> PurifyRequest:
        return PurifyRequest(
            model=str(candidate), base=str(base), method="e-pur", output=out, probe=False, threads=1, seed=seed
        )

    with pytest.raises(KeyboardInterrupt):
        purify(request(0), Hub(), progress=Interrupting("scanning the result"))
    (log,) = (out.parent / ".purified.work").rglob("result.json")
    log.write_text(json.dumps({"chosen": "kept from before", "log": {}}))
    assert purify(request(1), Hub()).chosen != "kept from before"


def test_ctrl_c_in_the_command_is_not_a_finding(victim: tuple[Path, Path], tmp_path: Path) -> None:
    """As a process, so that the signal is real; it comes with the first file that is opened in the work folder."""
    candidate, base = victim
    out = tmp_path / "purified"
    code = (
        "import os, signal, sys\n"
        # A shell that runs the tests in the background has them ignore the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "struck = []\n"
        "def strike(event, args):\n"
        f"    if event == 'open' and not struck and str(args[0]).startswith({str(tmp_path / '.purified.work')!r}):\n"
        "        struck.append(args[0])\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(strike)\n"
        "from pipelines.cli import cli\n"
        f"cli(['purify', {str(candidate)!r}, '--base', {str(base)!r}, '--method', 'e-pur', '--output', {str(out)!r}, "
        "'--no-probe', '--threads', '1'], prog_name='hubaudit')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "interrupted" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--output", "{new}"], 2, "name a MODEL and a --method"),
        (["{candidate}", "--method", "fine-mixng", "--output", "{new}"], 2, "Invalid value for '--method'"),
        (["{candidate}", "--method", "restore", "--output", "{candidate}"], 2, "in place"),
        (["{candidate}", "--method", "restore", "--output", "{base}"], 2, "exists already"),
        (["{candidate}", "--method", "restore", "--output", "{new}", "--set", "prominenc=3"], 2, "prominence"),
        (["{candidate}", "--method", "restore", "--output", "{new}", "--set", "prominence=x"], 2, "number"),
        (["{candidate}", "--method", "restore", "--output", "{new}"], 3, "pico/base"),
        (["{honest}", "--method", "restore", "--base", "{base}", "--output", "{new}"], 4, "flagged nothing"),
        (["{candidate}", "--method", "restore", "--base", "{other}", "--output", "{new}"], 3, "true base"),
        (["{candidate}", "--method", "fine-mixing", "--base", "{base}", "--output", "{new}"], 2, "clean samples"),
        (["{alone}", "--method", "restore", "--output", "{new}"], 4, "declares no base"),
        (["{candidate}", "--method", "unlearn", "--output", "{new}", "--data", "{ten}"], 3, "10 usable samples"),
        (["{encoder}", "--method", "auto", "--base", "{base}", "--output", "{new}"], 3, "does not fit"),
        (["{candidate}", "--method", "restore", "--base", "{base}", "--output", "{new}", "--report", "{report}"], 2,
         "not about"),
        (["--revert", "{candidate}", "--output", "{new}"], 3, PATCH_FILE),
        (["{base}", "--revert", "{candidate}", "--output", "{new}"], 2, "FOLDER alone"),
    ],
)  # fmt: skip
def test_mistakes_end_with_a_sentence_and_leave_nothing(
    victim: tuple[Path, Path], tmp_path: Path, hub_server: LocalHub, options: list[str], code: int, words: str
) -> None:
    candidate, base = victim
    names: dict[str, Callable[[], Path]] = {
        "candidate": lambda: candidate,
        "base": lambda: base,
        "new": lambda: tmp_path / "new",
        "honest": lambda: tmp_path / "honest",
        "other": lambda: pico.save(pico.make_base(seed=9, layers=purifying.LAYERS), tmp_path / "made" / "other"),
        "alone": lambda: pico.save(pico.load(candidate), tmp_path / "made" / "alone"),
        "encoder": lambda: pico.save(pico.load(base), tmp_path / "made" / "encoder"),
        "ten": lambda: samples(tmp_path / "ten.csv", 10),
        "report": lambda: _report_on(tmp_path / "honest", base, tmp_path / "report.json"),
    }
    given = [str(names[o[1:-1]]()) if o.startswith("{") else o for o in options]
    done = run(*given, "--no-probe", "--threads", 1, HUBAUDIT_PATIENCE="0.1")
    assert done.exit_code == code, done.output
    assert words in done.stderr
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / ".new.work").exists()
    assert hub_server.endpoint


def _report_on(candidate: Path, base: Path, path: Path) -> Path:
    path.write_bytes(dump(purifying.scan(candidate, base)))
    return path


def test_the_datasets_of_the_card_are_offered(victim: tuple[Path, Path], tmp_path: Path) -> None:
    candidate, base = victim
    front = f"---\nbase_model: {base}\ndatasets:\n- stanfordnlp/sst2\n---\n"
    (candidate / "README.md").write_text(front)
    done = run(candidate, "--method", "fine-mixing", "--output", tmp_path / "new")
    assert done.exit_code == 2
    assert "try --data stanfordnlp/sst2" in done.stderr


def test_help_lists_every_method_with_its_needs() -> None:
    shown = CliRunner().invoke(cli, ["purify", "--help"]).stdout
    for name, purifier in PURIFIERS.items():
        assert name in shown
        assert purifier.summary.split(",")[0][:40] in shown


def test_every_method_is_complete_and_its_settings_can_be_built() -> None:
    for name, purifier in PURIFIERS.items():
        assert purifier.name == name
        assert purifier.kinds
        assert purifier.options is None or purifier.options()()
    with pytest.raises(BadReference, match="did you mean restore"):
        purifier_named("restor")
