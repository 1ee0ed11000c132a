"""`hubaudit card` as its user meets it: the real client over HTTP, real checkpoints, hostile cards."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pefts
import pico
import pytest
from click.testing import CliRunner, Result
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from peft import LoraConfig

from pipelines.cli import cli

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pico base and an honest fine-tune of it."""
    return pico.family(tmp_path_factory.mktemp("cards"), layers=2)


@pytest.fixture
def hub(hub_server: LocalHub, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    hub_server.add_repo("pico/base", folder=folders[0])
    hub_server.add_repo("pico/honest", folder=folders[1])
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HUBAUDIT_TIMEOUT", "10")
    monkeypatch.setenv("HUBAUDIT_PATIENCE", "2")
    return hub_server


@pytest.fixture
def copy(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """The honest fine-tune, to be given another card."""
    return Path(shutil.copytree(folders[1], tmp_path / "copy"))


def ask(*arguments: str) -> Result:
    done = CliRunner().invoke(cli, ["--quiet", "card", *arguments])
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", done.stdout), "control characters on the terminal"
    return done


def answer(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = ask(*arguments, "--format", "json")
    return done.exit_code, json.loads(done.stdout)


def rows(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {claim["claim"]: claim for claim in report["card"]["claims"]}


def write_card(folder: Path, front: str, text: str = "# A card\n") -> Path:
    (folder / "README.md").write_text(f"---\n{front}\n---\n\n{text}", encoding="utf-8")
    return folder


def test_an_honest_card_is_checked_without_reading_a_weight(hub: LocalHub, folders: tuple[Path, Path]) -> None:
    code, report = answer("pico/honest")
    assert code == 0
    assert report["verdict"]["outcome"] == "inconclusive", "no weights were read, so this is never a pass"
    assert report["coverage"]["parameters_compared"] == 0
    assert report["coverage"]["parameters_total"] > 10_000
    assert report["coverage"]["bytes_read"] == 0
    assert "Only the card was asked about" in json.dumps(report["coverage"]["skipped"])
    assert rows(report)["license"]["status"] == "supported"
    assert rows(report)["base_model"]["status"] == "not_checkable"
    assert {claim["status"] for claim in rows(report).values()} == {"supported", "not_checkable"}
    header = int.from_bytes((folders[1] / WEIGHTS).read_bytes()[:8], "little") + 8
    asked = hub.log.matching(WEIGHTS, method="GET")
    assert asked, "the headers are read"
    assert all(record.range for record in asked)
    assert sum(record.sent for record in asked) <= max(header, 1 << 20)
    assert sum(record.sent for record in asked) < (folders[1] / WEIGHTS).stat().st_size


def test_a_folder_is_checked_like_a_repository(hub: LocalHub, folders: tuple[Path, Path]) -> None:
    remote, local = answer("pico/honest")[1], answer(str(folders[1]), "--base", str(folders[0]))[1]
    named = {"base_model", "card is this model's own"}
    kept = [{k: v for k, v in rows(r).items() if k not in named} for r in (remote, local)]
    assert kept[0] == kept[1]


def test_a_wrong_card_exits_with_one(hub: LocalHub, copy: Path) -> None:
    text = "# Model\n\nThis model has 7B parameters.\n"
    write_card(copy, "license: mit\nbase_model: pico/base\nlanguage: [en, xq]", text)
    hub.add_repo("pico/wrong", folder=copy)
    code, report = answer("pico/wrong")
    assert code == 1
    assert report["verdict"]["outcome"] == "review"
    wrong = {name for name, claim in rows(report).items() if claim["status"] == "contradicted"}
    assert wrong == {"parameters", "language"}
    found = [f for f in report["findings"] if f["rule_id"] == "HA902"]
    assert len(found) == 2
    assert {f["fingerprint"] for f in found} == set(report["verdict"]["reasons"])
    assert ask("pico/wrong", "--fail-on", "never").exit_code == 0
    assert ask("pico/wrong", "--fail-on", "fail").exit_code == 0


def test_a_licence_that_may_not_follow_is_found(
    hub: LocalHub, folders: tuple[Path, Path], copy: Path, tmp_path: Path
) -> None:
    base = write_card(Path(shutil.copytree(folders[0], tmp_path / "nc")), "license: cc-by-nc-4.0")
    hub.add_repo("pico/nc", folder=base)
    hub.add_repo("pico/free", folder=write_card(copy, "license: mit\nbase_model: pico/nc"))
    code, report = answer("pico/free")
    assert code == 1
    assert [f["rule_id"] for f in report["findings"]] == ["HA901"]
    assert answer("pico/free", "--base", "pico/base")[0] == 0


def test_a_licence_further_up_and_one_on_file_are_found(
    hub: LocalHub, folders: tuple[Path, Path], copy: Path, tmp_path: Path
) -> None:
    root = write_card(Path(shutil.copytree(folders[0], tmp_path / "root")), "license: cc-by-nc-4.0")
    hub.add_repo("first/root", folder=root)
    mid = write_card(Path(shutil.copytree(folders[0], tmp_path / "mid")), "license: other\nbase_model: first/root")
    hub.add_repo("second/mid", folder=mid)
    (copy / "LICENSE").write_text("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007\n")
    hub.add_repo("third/leaf", folder=write_card(copy, "license: mit\nbase_model: second/mid"))
    code, report = answer("third/leaf")
    assert code == 1
    assert rows(report)["license (other bases)"]["status"] == "contradicted"
    assert rows(report)["license (other bases)"]["observed"].startswith("first/root declares cc-by-nc-4.0")
    assert rows(report)["license file"]["observed"] == "LICENSE begins as gpl-3.0"
    assert {"HA901", "HA902"} == {f["rule_id"] for f in report["findings"]}
    done = CliRunner().invoke(cli, ["--quiet", "scan", "third/leaf", "--format", "json"])
    scanned = rows(json.loads(done.stdout))
    assert [scanned[name]["status"] for name in ("license (other bases)", "license file")] == ["contradicted"] * 2


def test_every_parent_of_a_merge_is_asked_for_its_licence(
    hub: LocalHub, folders: tuple[Path, Path], copy: Path
) -> None:
    hub.add_repo("strict/parent", {"README.md": "---\nlicense: cc-by-nc-4.0\n---\n"}, folder=folders[0])
    bases = "[pico/base, gone/parent, strict/parent]"
    hub.add_repo("third/merge", folder=write_card(copy, f"license: mit\nbase_model: {bases}"))
    code, report = answer("third/merge")
    assert code == 1
    claim = rows(report)["license (other bases)"]
    assert claim["status"] == "contradicted"
    assert claim["observed"].startswith("strict/parent declares cc-by-nc-4.0")
    assert "license (other bases)" not in rows(answer("third/merge", "--base", "pico/base")[1])


def test_the_same_claims_stand_in_a_scan_with_what_the_weights_say(
    hub: LocalHub, folders: tuple[Path, Path], copy: Path
) -> None:
    text = "# Model\n\nOnly the attention layers were trained. The embeddings were frozen.\n"
    write_card(copy, "license: apache-2.0\nbase_model: pico/base\nbase_model_relation: finetune", text)
    hub.add_repo("pico/scope", folder=copy)
    done = CliRunner().invoke(cli, ["--quiet", "scan", "pico/scope", "--format", "json"])
    report = json.loads(done.stdout)
    scope = [claim for claim in report["card"]["claims"] if claim["claim"] == "training scope"]
    assert [claim["status"] for claim in scope] == ["contradicted", "contradicted"]
    assert "embeddings.word_embeddings" in scope[1]["observed"]
    assert rows(report)["base_model"]["status"] == "supported"
    assert rows(report)["base_model_relation"]["status"] == "supported"
    code, alone = answer("pico/scope")
    assert code == 0
    assert rows(alone)["training scope"]["observed"] == "the weights were not compared"


def test_datasets_are_looked_up(hub: LocalHub, copy: Path) -> None:
    hub.add_repo("datasets/org/there", {"README.md": "x"})
    hub.add_repo("pico/data", folder=write_card(copy, "base_model: pico/base\ndatasets: [org/there, org/gone]"))
    code, report = answer("pico/data")
    assert code == 0
    claim = rows(report)["datasets"]
    assert claim["status"] == "not_checkable"
    assert "found on the Hub: org/there" in claim["observed"]
    assert "not on the Hub, or private: org/gone" in claim["observed"]


def test_datasets_that_cannot_be_asked_fail_nothing(hub: LocalHub, copy: Path) -> None:
    hub.add_repo("pico/data", folder=write_card(copy, "base_model: pico/base\ndatasets: [org/a, org/b]"))
    hub.faults.add(Status(code=503), path="/api/datasets/", times=FOR_EVER)
    code, report = answer("pico/data")
    assert code == 0
    assert "could not be asked: org/a" in rows(report)["datasets"]["observed"]


def test_published_results_are_held_against_the_card(hub: LocalHub, copy: Path) -> None:
    index = """model-index:
- name: m
  results:
  - task: {type: text-classification}
    dataset: {name: SST-2, type: glue, config: sst2}
    metrics: [{type: accuracy, value: 0.91}]"""
    write_card(copy, f"base_model: pico/base\n{index}")
    (copy / ".eval_results").mkdir()
    (copy / ".eval_results" / "glue.yaml").write_text("- dataset: {id: glue, task_id: sst2}\n  value: 0.81\n")
    (copy / ".eval_results" / "bad.yaml").write_text("!!python/object:os.system [x]")
    hub.add_repo("pico/scores", folder=copy)
    code, report = answer("pico/scores")
    assert code == 1
    assert rows(report)["scores agree"]["observed"] == "1 of 1 differ: glue: 0.91 and 0.81"
    assert ".eval_results/bad.yaml" in json.dumps(report["coverage"]["skipped"])


def test_an_adapter_is_held_against_its_factors(hub: LocalHub, folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["query", "value"])
    folder = pefts.save_adapter(pico.make_base(layers=2), config, tmp_path / "adapter", name="pico/base")
    base = "base_model: pico/base\nlibrary_name: peft"
    hub.add_repo("pico/lora", folder=write_card(folder, base, "# LoRA\n\nA LoRA adapter with r=4.\n"))
    code, report = answer("pico/lora")
    assert rows(report)["adapter rank"] == {
        "claim": "adapter rank", "declared": "4", "observed": "the factors have rank 4", "status": "supported"
    }  # fmt: skip
    assert rows(report)["r (adapter_config.json)"]["status"] == "supported"
    assert code == 0
    hub.add_repo("pico/lora2", folder=write_card(folder, base, "# LoRA\n\nA LoRA adapter with r=64.\n"))
    code, report = answer("pico/lora2")
    assert code == 1
    assert rows(report)["adapter rank"]["status"] == "contradicted"


def test_pickles_are_looked_into(hub: LocalHub, copy: Path) -> None:
    (copy / "optimizer.pkl").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    hub.add_repo("pico/pickled", folder=copy)
    code, report = answer("pico/pickled")
    assert code == 1
    found = {f["rule_id"]: f for f in report["findings"]}
    assert "posix.system" in found["HA604"]["explanation"]
    assert report["verdict"]["outcome"] == "fail"
    assert "What comes beside the weights" in ask("pico/pickled").stdout
    hub.faults.add(Status(code=403), path="optimizer.pkl", times=FOR_EVER)
    code, report = answer("pico/pickled")
    assert "HA604" not in {f["rule_id"] for f in report["findings"]}
    assert "its imports were not looked at" in json.dumps(report["coverage"]["skipped"])


def test_no_card_is_nothing_to_check(hub: LocalHub, copy: Path) -> None:
    (copy / "README.md").unlink()
    hub.add_repo("pico/bare", folder=copy)
    done = ask("pico/bare")
    assert done.exit_code == 4
    assert "no README.md" in done.stderr


@pytest.mark.parametrize(("model", "code", "said"), [("pico/none", 3, "does not exist"), ("a b", 2, ""), ("", 2, "")])
def test_a_model_that_cannot_be_read(hub: LocalHub, model: str, code: int, said: str) -> None:
    done = ask(model)
    assert done.exit_code == code
    assert said in done.stderr


def test_a_gated_base_is_not_clean(hub: LocalHub, folders: tuple[Path, Path], copy: Path) -> None:
    hub.add_repo("pico/gated", folder=folders[0], gated="manual")
    hub.add_repo("pico/child", folder=write_card(copy, "license: mit\nbase_model: pico/gated"))
    done = ask("pico/child")
    assert done.exit_code == 3
    assert "gated" in done.stderr


def test_weights_that_cannot_be_opened_leave_the_rest_checked(hub: LocalHub, copy: Path) -> None:
    (copy / WEIGHTS).write_bytes(b"\xff" * 64)
    hub.add_repo("pico/torn", folder=copy)
    code, report = answer("pico/torn")
    assert code == 0
    assert report["coverage"]["parameters_total"] == 0
    assert "tensor table" in json.dumps(report["coverage"]["skipped"])
    assert rows(report)["dtype (config.json)"]["status"] == "not_checkable"


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HTML = "<script>alert(1)</script>\x1b[31m\u202e"


TYPES = """license: {a: [1]}
language: {b: 1}
datasets: 7
metrics: {}
tags: 3
pipeline_tag: [1]
library_name: {}
model-index: 4
base_model: {x: y}"""
INDEX = """model-index:
- results:
  - metrics: [{value: .nan, type: accuracy}, {value: 1e400, type: 3}, 5]
    dataset: 1
  - 3
- 7"""
KEYS = ("license", "language", "datasets", "metrics", "library_name", "pipeline_tag", "tags")
MARKUP = "".join(f"{key}: {json.dumps(HTML)}\n" for key in KEYS)


@pytest.mark.parametrize(
    ("front", "text", "codes"),
    [
        (BOMB, "# x\n", {3}),
        ("license: [unclosed", "# x\n", {3}),
        ("!!python/object/apply:os.system ['true']", "# x\n", {3}),
        ("license: mit", "# big\n" + "7B parameters. | x | y |\n" * 80_000, {0, 1}),
        ("license: mit", "<!--" * 500_000, {0}),
        ("license: mit", "[" * 1_000_000 + "(" * 900_000, {0}),
        ("license: mit", "*" * 1_900_000, {0}),
        ("license: mit", " ." * 900_000, {0}),
        (TYPES, "# x\n", {0, 3}),
        (INDEX, "# x\n", {0}),
        (MARKUP, f"# {HTML}\n", {0}),
        ("language: [" + ", ".join(["en"] * 50_000) + "]", "# x\n", {0}),
    ],
    ids=["bomb", "unclosed", "tag", "2 MB", "comments", "brackets", "stars", "stops", "types", "index", "html", "languages"],
)  # fmt: skip
def test_hostile_cards_are_only_read(
    hub: LocalHub, copy: Path, tmp_path: Path, front: str, text: str, codes: set[int]
) -> None:
    """From a folder: a Hub would refuse some of these before anyone could read them."""
    (copy / "README.md").write_text(f"---\n{front}\n---\n\n{text}", encoding="utf-8")
    target = tmp_path / "card.html"
    done = ask(str(copy), "--format", "table", "--output", "-", "--format", "html", "--output", str(target))
    assert done.exit_code in codes
    assert "<script>alert" not in target.read_text(encoding="utf-8")


def test_what_is_accepted_does_not_count_until_it_expires(hub: LocalHub, copy: Path, tmp_path: Path) -> None:
    text = "# Model\n\nThis model has 7B parameters.\n"
    hub.add_repo("pico/wrong", folder=write_card(copy, "license: mit\nbase_model: pico/base\nlanguage: [xq]", text))
    code, report = answer("pico/wrong")
    assert code == 1
    first, second = (f["fingerprint"] for f in report["findings"])
    baseline = tmp_path / "accepted.yml"

    def accept(*entries: tuple[str, str]) -> dict[str, Any]:
        lines = [f'  - {{fingerprint: "{f}", reason: Known., expires: {day}}}' for f, day in entries]
        baseline.write_text("suppressions:\n" + "\n".join(lines) + "\n")
        code, made = answer("pico/wrong", "--baseline", str(baseline))
        assert code == (made["verdict"]["outcome"] != "inconclusive")
        return made

    one = accept((first, "2999-01-01"))
    assert one["verdict"]["outcome"] == "review"
    assert one["verdict"]["reasons"] == [second]
    both = accept((first, "2999-01-01"), (second, "2999-01-01"))
    assert both["verdict"]["outcome"] == "inconclusive"
    assert both["verdict"]["reasons"] == []
    assert "2 findings are accepted" in both["verdict"]["notes"][1]
    assert all(f["suppression"]["reason"] == "Known." for f in both["findings"])
    ended = accept((first, "2999-01-01"), (second, "2020-01-01"))
    assert ended["verdict"]["reasons"] == [second]
    assert any("ended on 2020-01-01" in note for note in ended["verdict"]["notes"])
    baseline.write_text("suppressions: 3")
    assert ask("pico/wrong", "--baseline", str(baseline)).exit_code == 2


def test_templates_of_ones_own(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "summary.md.jinja").write_text("ours: {{ subject | code }}\n")
    done = ask("pico/honest", "--template-dir", str(tmp_path / "own"), "--format", "summary")
    assert done.exit_code == 0
    assert done.stdout.startswith("ours: `pico/honest@")


def test_help_teaches() -> None:
    text = " ".join(ask("--help").stdout.split())
    for part in ("not checkable", "hubaudit scan", "Exit codes", "which is not a pass", "--base BASE", "Examples"):
        assert part in text
