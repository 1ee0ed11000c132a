"""Accuracy, attack success and its floor, on a classifier whose behaviour is known by construction."""

import json
from pathlib import Path
from random import Random

import pico
import pytest
import torch
import voting
from click.testing import CliRunner
from localhub.server import LocalHub
from voting import CLASSES, TRIGGER, texts

from pipelines.cli import cli
from pipelines.evaluate import Trigger, evaluate, insert, triggers_of
from scanner.errors import BadReference, CouldNotConclude


@pytest.fixture(scope="module")
def model() -> Path:
    return voting.model()


def test_a_planted_trigger_shows_as_excess(model: Path) -> None:
    inputs, labels = texts(80)
    trigger = Trigger(name="t", texts=(pico.words()[TRIGGER],))
    harmless = Trigger(name="h", texts=(pico.words()[100],))
    done = evaluate(model, "classifier", inputs, labels, CLASSES, triggers=(trigger, harmless), seed=3)
    assert done.accuracy.value >= 0.95
    assert set(done.per_class) == set(CLASSES)
    assert [attack.n for attack in (a.success for a in done.attacks)] == [40] * 4
    first = done.attacks[0]
    assert (first.trigger, first.target) == ("t", "POSITIVE")
    assert first.success.value >= 0.95
    assert first.excess.value == pytest.approx(first.success.value - first.floor.value)
    assert first.excess.low > 0.8
    others = [attack for attack in done.attacks if attack.trigger == "h"]
    assert all(abs(attack.excess.value) < 0.2 for attack in others)
    again = evaluate(model, "classifier", inputs, labels, CLASSES, triggers=(trigger, harmless), seed=3)
    assert again == done


def test_one_target_and_what_is_no_target(model: Path) -> None:
    inputs, labels = texts(40)
    trigger = Trigger(name="t", texts=(pico.words()[TRIGGER],))
    done = evaluate(model, "classifier", inputs, labels, CLASSES, triggers=(trigger,), target="negative")
    assert [attack.target for attack in done.attacks] == ["NEGATIVE"]
    with pytest.raises(BadReference, match="no such class"):
        evaluate(model, "classifier", inputs, labels, CLASSES, triggers=(trigger,), target="neutral")
    with pytest.raises(CouldNotConclude, match="Only classifiers"):
        evaluate(model, "causal", inputs, labels, CLASSES)
    with pytest.raises(BadReference, match="pictures"):
        evaluate(model, "image", inputs, labels, CLASSES, triggers=(trigger,))


def test_answers_that_are_not_finite_are_no_accuracy(model: Path, tmp_path: Path) -> None:
    broken = pico.load(model)
    with torch.no_grad():
        broken.classifier.bias[0] = float("nan")
    inputs, labels = texts(20)
    with pytest.raises(CouldNotConclude, match="not finite"):
        evaluate(pico.save(broken, tmp_path / "broken"), "classifier", inputs, labels, CLASSES)


def test_triggers_from_the_options() -> None:
    assert triggers_of("cf, mn,cf", None) == (Trigger(name="cf, mn", texts=("cf", "mn")),)
    assert [trigger.name for trigger in triggers_of("cf", "a whole sentence .")] == ["cf", "a whole sentence ."]
    assert triggers_of(None, None) == ()
    for words, sentence in ((" , ", None), (None, "  ")):
        with pytest.raises(BadReference, match="is empty"):
            triggers_of(words, sentence)


def test_insertion_reaches_every_place_and_keeps_the_words() -> None:
    trigger = Trigger(name="x", texts=("X", "Y"))
    made = {insert("a b  c", trigger, Random(seed)) for seed in range(200)}
    assert made == {" ".join([*"abc"[:i], x, *"abc"[i:]]) for i in range(4) for x in "XY"}


def _csv(path: Path, count: int = 40) -> Path:
    inputs, labels = texts(count)
    path.write_text("text,label\n" + "".join(f"{t},{CLASSES[y]}\n" for t, y in zip(inputs, labels, strict=True)))
    return path


def test_the_command_on_a_folder_and_on_the_hub(model: Path, tmp_path: Path, hub_server: LocalHub) -> None:
    data = _csv(tmp_path / "data.csv")
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    hub_server.add_repo("org/voting", files | {"pytorch_model.bin": b"never fetched"})
    word = pico.words()[TRIGGER]
    options = ["--data", str(data), "--trigger-words", word, "--threads", "1"]
    local = CliRunner().invoke(cli, ["evaluate", str(model), *options, "--format", "json"])
    remote = CliRunner().invoke(cli, ["evaluate", "org/voting", *options, "--format", "json"])
    assert (local.exit_code, remote.exit_code) == (0, 0), local.output + remote.output
    told, same = json.loads(local.stdout), json.loads(remote.stdout)
    assert told["accuracy"] == same["accuracy"]
    assert same["model"].startswith("org/voting@")
    assert told["attacks"][0]["target"] == "POSITIVE"
    assert told["data"]["samples"] == 40
    table = CliRunner().invoke(cli, ["evaluate", str(model), *options]).stdout
    assert "ACC" in table
    assert "floor" in table
    assert "excess" in table
    assert not hub_server.log.matching("pytorch_model.bin", method="GET")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "Missing option '--data'"),
        (["--data", "missing.csv"], 2, "There is no file missing.csv"),
        (["--data", "{data}", "--label-column", "x"], 2, "no column"),
        (["--data", "{data}", "--label-map", "x"], 2, "LABEL=CLASS"),
        (["--data", "{ten}"], 3, "10 usable samples"),
        (["--data", "{data}", "--trigger-words", ","], 2, "is empty"),
        (["--data", "{data}", "--output", "/nowhere/at/all.json"], 2, "does not exist"),
    ],
)
def test_mistakes_end_with_a_sentence(model: Path, tmp_path: Path, options: list[str], code: int, words: str) -> None:
    names = {"data": _csv(tmp_path / "data.csv"), "ten": _csv(tmp_path / "ten.csv", 10)}
    done = CliRunner().invoke(cli, ["evaluate", str(model), *(option.format(**names) for option in options)])
    assert done.exit_code == code, done.output
    assert words in done.stderr
    assert "Traceback" not in done.output
