"""`hubaudit lineage` as its user meets it."""

import json

import pytest
from click.testing import CliRunner
from descents import drifted, random_body, write

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
    assert "that is nearer" in done.stdout.splitlines()[0]


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
