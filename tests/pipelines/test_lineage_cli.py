"""`hubaudit lineage` as its user meets it."""

import json
import re
from pathlib import Path

import pefts
import pytest
from click.testing import CliRunner
from descents import drifted, random_body, write
from peft import LoraConfig

from pipelines.cli import cli

BASE = random_body(1)
MINE = drifted(BASE, seed=11)
WEIGHTS = {
    "org/base": BASE,
    "org/mine": MINE,
    "org/sibling": drifted(BASE, seed=12),
    "org/stranger": random_body(2),
    "org/wrong": MINE,
    "org/quiet": MINE,
    "org/itself": MINE,
}
CARDS = {
    "org/mine": "base_model: org/base",
    "org/sibling": "base_model: org/base",
    "org/wrong": "base_model: org/stranger",
    "org/itself": "base_model: org/itself",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("lineage")
    for name, tensors in WEIGHTS.items():
        folder = write(root / name, tensors)
        front = CARDS.get(name, "license: mit")
        (folder / "README.md").write_text(f"---\ntags:\n- llama\n{front}\n---\n")
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return root


@pytest.fixture(autouse=True)
def hub(hub_server, folders, monkeypatch):
    for name in WEIGHTS:
        hub_server.add_repo(name, folder=folders / name)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HUBAUDIT_PATIENCE", "2")
    return hub_server


def ask(*arguments):
    done = CliRunner().invoke(cli, ["--quiet", "lineage", *arguments])
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    return done


def answer(*arguments):
    done = ask(*arguments, "--format", "json")
    return done.exit_code, json.loads(done.stdout)


def listed(tmp_path, *names):
    path = tmp_path / "parents.txt"
    path.write_text("# possible parents\n\n" + "".join(f"{name}  # one\n" for name in names))
    return str(path)


def test_the_declared_base_is_verified_and_nearest(tmp_path):
    code, found = answer("org/mine", "--candidates", listed(tmp_path, "org/sibling", "org/stranger"))
    assert (code, found["status"]) == (0, "verified")
    assert found["nearest"].startswith("org/base@")
    assert found["runner_up"].startswith("org/sibling@")
    assert [row["status"] for row in found["candidates"]] == ["verified", "verified", "contradicted"]
    assert {check["name"] for check in found["checks"]} >= {"nearest_base", "direction"}


def test_a_refuted_base_is_replaced_by_the_nearest(tmp_path):
    code, found = answer("org/wrong", "--candidates", listed(tmp_path, "org/sibling", "org/base"))
    assert (code, found["status"]) == (1, "contradicted")
    assert found["nearest"].startswith("org/base@")


def test_a_declared_sibling_is_called_out(tmp_path):
    done = ask("org/mine", "--base", "org/sibling", "--candidates", listed(tmp_path, "org/base"))
    assert done.exit_code == 1
    assert "org/base@" in done.stdout.splitlines()[0]
    assert "is nearer" in done.stdout.splitlines()[0]
    assert "do not say whether the model came from it or before it" in done.stdout.splitlines()[0]


def test_without_a_list_the_hub_is_searched():
    code, found = answer("org/quiet")
    assert code == 0
    assert found["declared"] is None
    assert {row["model"].partition("@")[0] for row in found["candidates"]} >= {"org/base", "org/stranger"}


def test_a_list_that_contains_the_model_itself(tmp_path):
    code, found = answer("org/itself", "--candidates", listed(tmp_path, "org/itself", "org/base"))
    assert code == 0
    assert [row["model"].partition("@")[0] for row in found["candidates"]] == ["org/base"]
    assert any("model itself" in skip["why"] for skip in found["skipped"])


def test_a_list_with_nothing_but_the_model_itself(tmp_path):
    assert ask("org/itself", "--candidates", listed(tmp_path, "org/itself")).exit_code in {3, 4}


def test_missing_candidates_are_skips(tmp_path):
    code, found = answer("org/mine", "--candidates", listed(tmp_path, "org/none", "../etc", "org/stranger"))
    assert code == 0
    assert len(found["skipped"]) >= 2


@pytest.mark.parametrize("content", ["", "# only a comment\n", "\n".join(f"org/m{i}" for i in range(300))])
def test_lists_without_an_end_or_a_beginning_are_wrong_usage(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_text(content)
    assert ask("org/mine", "--candidates", str(path)).exit_code == 2


def test_the_table_goes_to_a_file(tmp_path):
    target = tmp_path / "lineage.txt"
    done = ask("org/mine", "--candidates", listed(tmp_path, "org/stranger"), "--output", str(target))
    assert done.exit_code == 0
    assert "verified" in target.read_text()
    assert ask("org/mine", "--output", str(tmp_path / "no" / "x")).exit_code == 2


def test_the_table_names_claims_conflicts_the_runner_up_and_the_cost(hub, tmp_path):
    done = ask("org/mine", "--candidates", listed(tmp_path, "org/sibling"))
    lines = done.stdout.splitlines()
    assert any(line.startswith("runner-up: org/sibling@") for line in lines)
    assert any(line.startswith("declared: org/base (card base_model") and "relation finetune" in line for line in lines)
    (cost,) = [line for line in lines if line.startswith("cost: ")]
    assert cost.endswith(f" {len(hub.log)} requests")
    alone = ask("org/mine", "--candidates", listed(tmp_path, "org/base"))
    assert "runner-up: none, nothing else was compared" in alone.stdout
    itself = ask("org/itself", "--candidates", listed(tmp_path, "org/base"))
    assert "and Hub tags declare the model itself as its base." in itself.stdout


def test_the_configurations_own_name_is_one_candidate_more(hub, folders, tmp_path):
    folder = write(tmp_path / "renamed", MINE)
    (folder / "README.md").write_text("---\nbase_model: org/stranger\n---\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "_name_or_path": "org/base"}))
    hub.add_repo("org/renamed", folder=folder)
    code, found = answer("org/renamed", "--candidates", listed(tmp_path, "org/sibling"))
    assert (code, found["status"]) == (1, "contradicted")
    assert found["nearest"].startswith("org/base@")


def test_a_base_that_does_not_exist_is_named(hub, tmp_path):
    hub.add_repo("org/orphan", folder=write(tmp_path / "orphan", random_body(9)))
    hub.commit("org/orphan", {"README.md": b"---\nbase_model: org/vanished\n---\n"})
    done = ask("org/orphan")
    assert done.exit_code == 3, "it may be private: as for a scan, that is no answer"
    assert "org/vanished does not exist" in done.output


def test_no_base_and_nothing_alike_is_nothing_to_compare(hub, tmp_path):
    hub.add_repo("org/alone", folder=write(tmp_path / "alone", random_body(9)))
    hub.commit("org/alone", {"README.md": b"# no base\n", "config.json": b"{}"})
    done = ask("org/alone")
    assert done.exit_code == 4
    assert "org/alone declares no base" in done.output


def test_an_empty_base_is_wrong_usage():
    assert ask("org/mine", "--base", "").exit_code == 2


def test_the_json_is_as_documented(tmp_path):
    _, found = answer("org/mine", "--candidates", listed(tmp_path, "org/sibling"))
    text = (Path(__file__).parents[2] / "docs" / "lineage.md").read_text()
    told = set(re.findall(r"^\| `([a-z_0-9]+)` \|", text, flags=re.MULTILINE))
    assert told == set(found) | set(found["candidates"][0])


def test_an_adapter_fits_bases_and_tells_none_apart(hub, tmp_path):
    hub.add_repo("pico/base", folder=pefts.save_base(pefts.llama(), tmp_path / "base"))
    hub.add_repo("pico/other", folder=pefts.save_base(pefts.llama(seed=5), tmp_path / "other"))
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    hub.add_repo(
        "pico/adapter", folder=pefts.save_adapter(pefts.llama(), config, tmp_path / "adapter", name="pico/base")
    )
    names = listed(tmp_path, "pico/other", "org/base")
    code, found = answer("pico/adapter", "--candidates", names)
    assert (code, found["status"], found["bytes_read"]) == (0, "verified", 0)
    status = {row["model"].partition("@")[0]: row["status"] for row in found["candidates"]}
    assert (status["pico/base"], status["pico/other"]) == ("verified", "verified")
    assert status["org/base"] != "verified"
    assert "do not say which base" in ask("pico/adapter", "--candidates", names).stdout.splitlines()[0]
