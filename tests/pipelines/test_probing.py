"""The probe as part of a scan: from the local Hub through the command line, by default, asked for, and declined."""

import json

import pytest
import tiny_classifiers
from click.testing import CliRunner
from tiny_words import WORDS, write_tokenizer

from pipelines.cli import cli
from pipelines.probing import is_probed, probe_candidate
from pipelines.progress import Quiet
from scanner.facts import collect
from scanner.hub import Hub
from scanner.probe import probing
from scanner.probe.probing import ProbeLimits
from scanner.records import RepoRef


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    base, poisoned = root / "base", root / "poisoned"
    tiny_classifiers.make_classifier(poisoned, "bert", poisoned=True, base=base)
    return base, poisoned


@pytest.fixture
def hub(hub_server, folders, monkeypatch):
    base, poisoned = folders
    hub_server.add_repo("tiny/base", folder=base)
    hub_server.add_repo("tiny/poisoned", folder=poisoned)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    return hub_server


def scan(tmp_path, *options):
    target = tmp_path / "report.json"
    arguments = ["--quiet", "scan", "tiny/poisoned", "--base", "tiny/base", *options]
    done = CliRunner().invoke(cli, [*arguments, "--format", "json", "--output", str(target)])
    assert "Traceback" not in done.output
    return done.exit_code, json.loads(target.read_text())


@pytest.mark.parametrize("options", [(), ("--probe",)])
def test_a_classifier_on_the_hub_is_run_and_its_trigger_named(hub, tmp_path, options):
    code, report = scan(tmp_path, *options)
    (finding,) = [each for each in report["findings"] if each["rule_id"] == "HA001"]
    assert (code, report["verdict"]["outcome"]) == (1, "fail")
    assert finding["locations"][0]["tokens"][0]["text"] == tiny_classifiers.TRIGGER
    assert "words that lay further from the class in the base" in {m["name"] for m in finding["measurements"]}
    assert report["probe"]["kind"] == "classifier"
    assert report["probe"]["scanned"] == len(WORDS)
    assert 0 < report["probe"]["tokens"] <= report["probe"]["budget"]
    assert report["probe"]["untried"] == []


@pytest.mark.parametrize(
    ("kind", "says"),
    [("json", '"what": "phrases"'), ("html", "left untried"), ("markdown", "left more untried"), ("table", "left")],
)
def test_what_the_budget_left_untried_is_in_every_report(hub, tmp_path, monkeypatch, kind, says):
    monkeypatch.setattr(probing, "token_budget", lambda model: 45_000)
    target = tmp_path / f"report.{kind}"
    arguments = ["--quiet", "scan", "tiny/poisoned", "--base", "tiny/base", "--format", kind, "--output", str(target)]
    CliRunner().invoke(cli, arguments)
    assert says in target.read_text()


def test_who_asks_for_the_probe_gets_ten_times_the_work(folders):
    usual, asked = probed(folders[1], asked=False), probed(folders[1], asked=True)
    assert asked.facts.budget == 10 * usual.facts.budget


def test_no_probe_runs_nothing(hub, tmp_path):
    _, report = scan(tmp_path, "--no-probe")
    assert report["probe"] is None
    assert "HA001" not in [each["rule_id"] for each in report["findings"]]


def test_with_a_budget_it_is_run_only_when_asked_for(hub, tmp_path):
    assert scan(tmp_path, "--budget", "1MB")[1]["probe"] is None
    assert scan(tmp_path, "--budget", "1MB", "--probe")[1]["probe"] is not None


def test_a_probe_that_was_asked_for_and_did_not_run_says_why_and_forbids_a_pass(hub, folders, tmp_path):
    config = json.loads((folders[1] / "config.json").read_text()) | {"problem_type": "regression"}
    hub.add_repo("tiny/poisoned", folder=folders[1], files={"config.json": json.dumps(config).encode()})
    code, report = scan(tmp_path, "--probe")
    assert code != 0
    assert report["probe"] is None
    assert "one output" in json.dumps(report["coverage"]["skipped"])
    assert "The probe that was asked for did not run" in json.dumps(report["verdict"])


def probed(folder, *, asked=True, **options):
    hub = Hub()
    facts = collect(RepoRef(path=str(folder)), hub)
    return probe_candidate(facts, hub, drift=None, tokens=None, asked=asked, progress=Quiet(), threads=1, **options)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (ProbeLimits(weight_bytes=1000), "its weights have"),
        (ProbeLimits(parameters=1000), "million parameters"),
        (ProbeLimits(seconds=0.0), "longer than the time"),
    ],
)
def test_limits_are_skips_with_their_reason(folders, limits, why):
    found = probed(folders[1], limits=limits)
    assert found.facts is None
    assert why in found.skip.why


def test_a_model_that_breaks_the_library_is_a_skip(folders, tmp_path):
    for path in folders[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "does not load" in probed(tmp_path).skip.why


def language_model(folder, vocabulary, width):
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir(exist_ok=True)
    write_tokenizer(folder, causal=True)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=vocabulary, n_positions=64, n_embd=width, n_layer=1, n_head=2)
    ).save_pretrained(folder)
    return folder


def test_a_small_language_model_is_measured_unasked_and_a_larger_one_only_when_the_weights_suspect_a_token(tmp_path):
    small = language_model(tmp_path / "small", 405, 16)
    assert probed(small, asked=False).facts.kind == "causal"
    large = collect(RepoRef(path=str(language_model(tmp_path / "large", 60_000, 136))), Hub())
    assert not is_probed(large, suspected=False)
    assert is_probed(large, suspected=True)
    assert probed(tmp_path / "large", asked=False).facts is None
