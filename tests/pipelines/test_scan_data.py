"""``scan --data``: from the local Hub through the command line to the report, and everything that stands in its way."""

import csv
import json
import random
import shutil

import pytest
import tiny_classifiers
from click.testing import CliRunner
from evidence_for import measured
from tiny_words import WORDS, write_tokenizer

from pipelines.cli import cli
from pipelines.data_mode import weigh_data
from pipelines.purify.data import DataSpec
from scanner.curvature.measuring import CurvatureLimits
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import Lineage, RepoRef

HONEST = "tiny/honest"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data-mode")
    base = root / "base"
    tiny_classifiers.make_classifier(root / "honest", "bert", poisoned=False, base=base, steps=60)
    return base, root / "honest"


@pytest.fixture
def hub(hub_server, folders, monkeypatch):
    base, honest = folders
    hub_server.add_repo("tiny/base", folder=base)
    hub_server.add_repo(HONEST, folder=honest)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    return hub_server


def rows(count=80, seed=3):
    rng = random.Random(seed)
    for number in range(count):
        own = WORDS[:150] if number % 2 else WORDS[150:300]
        yield {"text": " ".join(rng.choices(own, k=8)), "label": f"LABEL_{number % 2}"}


def write_csv(path, of=None, columns=("text", "label")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(tuple(row.values()) for row in (of or rows()))
    return path


def scan(tmp_path, *options, model=HONEST, form="json"):
    target = tmp_path / f"report.{form}"
    arguments = ["--quiet", "scan", model, "--base", "tiny/base", "--no-probe", *map(str, options)]
    done = CliRunner().invoke(cli, [*arguments, "--format", form, "--output", str(target)])
    assert "Traceback" not in done.output, done.output
    return done, (target.read_text() if target.exists() else "")


def told(tmp_path, *options, **more):
    done, text = scan(tmp_path, *options, **more)
    return done.exit_code, json.loads(text)


def test_data_are_measured_and_reported(hub, tmp_path):
    _, report = told(tmp_path, "--data", write_csv(tmp_path / "clean.csv"))
    found = report["curvature"]
    assert (found["source"], found["examples"]) == ("clean.csv", 64)
    assert len(found["digest"]) == 64
    assert found["accuracy"] > 0.9
    assert found["tested"] == 2  # the embedding and the one matrix of 64 rows
    assert [plot["indicator"] for plot in found["plots"]] == ["fitted", "delta2_over_H", "delta2_over_sqrtH", "delta2"]
    best = found["plots"][0]
    assert len(best["levels"]) == len(best["law"]) == len(best["measured"]) > 90
    assert best["measured"] == sorted(best["measured"])
    p_values = [tensor["p_value"] for tensor in found["tensors"]]
    assert p_values == sorted(p_values)
    assert found["by_e_bh"] <= found["by_bh"] <= found["tested"]
    table = next(tensor for tensor in found["tensors"] if tensor["role"] == "embedding")
    assert {row["token"] for row in table["rows"]} <= {*WORDS}
    assert not [f for f in report["findings"] if f["rule_id"] == "HA405" and f["severity"] not in {"low", "medium"}]


def test_the_same_scan_gives_the_same_record(hub, tmp_path):
    data = write_csv(tmp_path / "clean.csv")
    one, other = (told(tmp_path, "--data", data)[1]["curvature"] for _ in range(2))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_options_of_the_data_are_heeded(hub, tmp_path):
    of = [{"words": row["text"], "mood": "up" if row["label"] == "LABEL_1" else "down"} for row in rows()]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of))
    options = ("--text-column", "words", "--label-column", "mood", "--label-map", "up=LABEL_1")
    _, report = told(tmp_path, "--data", tmp_path / "d.jsonl", *options, "--label-map", "down=LABEL_0")
    assert report["curvature"]["accuracy"] > 0.9


def test_the_page_draws_the_quantiles_and_ranks_the_rows(hub, tmp_path):
    _, page = scan(tmp_path, "--data", write_csv(tmp_path / "clean.csv"), form="html")
    assert 'id="data"' in page
    assert "Quantiles of the change against their law" in page
    assert "64 examples of clean.csv" in page


@pytest.mark.parametrize(
    ("columns", "label", "why"),
    [
        (("text", "number"), None, "looks like labels"),
        (("a", "label"), None, "looks like inputs"),
        (("text", "label"), "LABEL_1", "have the label"),
        (("text", "label"), "purple", "purple"),
        (("text", "label"), "", "no label"),
    ],
)
def test_data_that_cannot_be_used_are_a_skip_and_no_pass(hub, tmp_path, columns, label, why):
    of = [row if label is None else {"text": row["text"], "label": label} for row in rows()]
    code, report = told(tmp_path, "--data", write_csv(tmp_path / "d.csv", of, columns))
    (skip,) = [each for each in report["coverage"]["skipped"] if each["what"] == "--data"]
    assert why in skip["why"]
    assert report["curvature"] is None
    assert report["verdict"]["outcome"] != "pass"
    assert "The data that were given could not be used" in json.dumps(report["verdict"]["notes"])
    assert code != 0


def broken(folder, target, config=None, nan=False):
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(folder, target)
    if nan:
        import torch

        model = AutoModelForSequenceClassification.from_pretrained(folder)
        with torch.no_grad():
            model.classifier.bias[0] = float("nan")
        model.save_pretrained(target)
        write_tokenizer(target, causal=False)
    changed = json.loads((target / "config.json").read_text()) | (config or {})
    (target / "config.json").write_text(json.dumps(changed))
    return str(target)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nan": True}, "not a finite number"),
        ({"config": {"architectures": ["BertModel"]}}, "only text classifiers and causal language models"),
        ({"config": {"hidden_act": "no-such"}}, "does not load"),
    ],
)
def test_a_model_that_cannot_be_measured_is_a_skip(hub, folders, tmp_path, changes, why):
    model = broken(folders[1], tmp_path / "model", **changes)
    data = write_csv(tmp_path / "clean.csv")
    code, report = told(tmp_path, "--data", data, model=model)
    assert why in json.dumps(report["coverage"]["skipped"])
    assert report["curvature"] is None
    assert report["verdict"]["outcome"] != "pass"
    assert code != 0


def test_without_a_base_there_is_nothing_to_hold_against(hub, folders, tmp_path):
    target = tmp_path / "r.json"
    arguments = ["--quiet", "scan", str(folders[1]), "--data", str(write_csv(tmp_path / "clean.csv"))]
    done = CliRunner().invoke(cli, [*arguments, "--no-probe", "--format", "json", "--output", str(target)])
    assert done.exit_code == 4
    assert "not compared" in json.dumps(json.loads(target.read_text())["coverage"]["skipped"])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--data", "absent.csv"), "There is no file absent.csv"),
        (("--data", "."), "is a folder"),
        (("--data", "x/y", "--budget", "1MB"), "leave out --budget"),
        (("--text-column", "words"), "name the data too"),
        (("--data", "x/y", "--label-map", "up"), "LABEL=CLASS"),
    ],
)
def test_wrong_usage_ends_before_anything_is_read(hub, tmp_path, options, why):
    done, text = scan(tmp_path, *options)
    assert done.exit_code == 2
    assert why in done.output
    assert text == ""


def test_declared_datasets_are_named_where_no_data_were_given(hub, folders, tmp_path):
    hub.add_repo("tiny/declared", folder=folders[1], files={"README.md": b"---\ndatasets: [org/reviews]\n---\n"})
    without = told(tmp_path, model="tiny/declared")[1]
    assert "--data org/reviews" in json.dumps(without["verdict"]["notes"])
    given = told(tmp_path, "--data", write_csv(tmp_path / "clean.csv"), model="tiny/declared")[1]
    assert "--data org/reviews" not in json.dumps(given["verdict"]["notes"])


class Heard:
    """A progress that remembers."""

    def __init__(self):
        self.stages, self.advances = [], []

    def stage(self, text):
        self.stages.append(text)

    def advance(self, done, total):
        self.advances.append((done, total))


def weighed(folders, tmp_path, **options):
    base, honest = (collect(RepoRef(path=str(folder)), Hub()) for folder in folders)
    lineage = Lineage(candidate=honest.ref, base=base.ref, relation="finetune", status="verified", claims=())
    drift = measured(*folders)
    spec = DataSpec(source=str(write_csv(tmp_path / "clean.csv")))
    heard = Heard()
    return weigh_data(spec, honest, base, Hub(), lineage=lineage, drift=drift, progress=heard, **options), heard


def test_progress_is_told(folders, tmp_path):
    found, heard = weighed(folders, tmp_path)
    assert found.problem is None
    assert heard.stages[0] == "reading the given data"
    assert "running the model on the given examples, 1 of 64" in heard.stages
    assert heard.stages[-1] == "holding the change against the given examples"
    done, total = heard.advances[-1]
    assert done == total == 4 * sum(tensor.dimensions for tensor in found.facts.tensors)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (CurvatureLimits(weight_bytes=1000), "its weights have"),
        (CurvatureLimits(parameters=1000), "million parameters"),
        (CurvatureLimits(seconds=0.0), "longer on the given examples"),
    ],
)
def test_limits_are_problems_with_their_reason(folders, tmp_path, limits, why):
    found, _ = weighed(folders, tmp_path, limits=limits)
    assert found.facts is None
    assert why in found.problem
    assert [skip.what for skip in found.skips] == ["--data"]


def test_a_dataset_on_the_hub_is_read_by_its_name(hub, tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in rows()).encode()
    hub.add_repo("datasets/org/reviews", {"train.jsonl": lines, "test.jsonl": lines})
    _, report = told(tmp_path, "--data", "org/reviews", "--data-split", "test")
    assert report["curvature"]["source"] == "org/reviews:test"
    assert report["curvature"]["accuracy"] > 0.9
