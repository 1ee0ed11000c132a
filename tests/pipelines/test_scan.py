"""`hubaudit scan` as its user meets it: the real client over HTTP, real checkpoints, and every kind of bad input."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pytest
from click.testing import CliRunner
from localhub.faults import FOR_EVER, Drop, IgnoreRange, Stall, Status, Truncate
from localhub.server import LocalHub
from safetensors.numpy import load_file, save_file

from pipelines.cli import cli

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str
    report: dict[str, Any] | None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pico base of six layers and an honest fine-tune of it."""
    return pico.family(tmp_path_factory.mktemp("family"), layers=6)


@pytest.fixture
def hub(hub_server: LocalHub, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    base, honest = folders
    hub_server.add_repo("pico/base", folder=base)
    hub_server.add_repo("pico/honest", folder=honest)
    monkeypatch.setenv("HF_ENDPOINT", hub_server.endpoint)
    monkeypatch.setenv("HUBAUDIT_TIMEOUT", "10")
    monkeypatch.setenv("HUBAUDIT_PATIENCE", "2")
    return hub_server


@pytest.fixture
def copy(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the honest fine-tune that a test may spoil."""
    return Path(shutil.copytree(folders[1], tmp_path / "copy"))


def scan(*arguments: str, folder: Path | None = None) -> Ran:
    """Run the command; every run must end with a sentence, no traceback, and no terminal control."""
    target = (folder or Path()) / "report.json" if folder else None
    extra = ["--format", "json", "--output", str(target), "--format", "table"] if target else []
    done = CliRunner().invoke(cli, ["--quiet", "scan", *arguments, *extra])
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", done.output), "control characters on the terminal"
    report = json.loads(target.read_text()) if target and target.exists() else None
    if target:
        assert not [path for path in target.parent.iterdir() if path.name.endswith(".part")]
    return Ran(done.exit_code, done.stdout, done.stderr, report)


def spoil(folder: Path, **tensors: np.ndarray) -> Path:
    """Replace or add tensors of a checkpoint."""
    content = load_file(folder / WEIGHTS)
    save_file({**content, **tensors}, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def test_an_honest_fine_tune_is_compared_whole_and_nothing_is_found(hub: LocalHub, tmp_path: Path) -> None:
    ran = scan("pico/honest", folder=tmp_path)
    assert ran.report is not None
    assert ran.report["lineage"]["status"] == "verified"
    assert ran.report["lineage"]["base"]["repo_id"] == "pico/base"
    assert re.fullmatch("[0-9a-f]{40}", ran.report["subject"]["revision"])
    assert [f["rule_id"] for f in ran.report["findings"] if f["severity"] in {"high", "critical"}] == []
    assert ran.report["coverage"]["parameters_compared"] > 0.99 * ran.report["coverage"]["parameters_total"]
    assert ran.report["runtime"]["requests"] == len(hub.log)
    assert ran.out.splitlines()[0].count("compared") == 1, "coverage stands on the first line"
    assert ran.code == {"pass": 0, "inconclusive": 3, "review": 1}[ran.report["verdict"]["outcome"]]


def test_the_same_scan_of_folders_finds_the_same(folders: tuple[Path, Path], hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    remote = scan("pico/honest", folder=tmp_path / "a").report
    local = scan(str(folders[1]), "--base", str(folders[0]), folder=tmp_path / "b").report
    assert remote is not None
    assert local is not None
    assert local["subject"]["path"] == str(folders[1])
    assert local["runtime"]["requests"] == 0
    assert [row["tensor"] for row in local["drift"]] == [row["tensor"] for row in remote["drift"]]
    for name in ("relative_l2", "delta_l2", "base_l2", "changed_fraction"):
        assert [row[name] for row in local["drift"]] == pytest.approx([row[name] for row in remote["drift"]]), name


@pytest.mark.parametrize(
    "plant", [lambda m: pico.poison_row(m, 200, keep_norm=False), lambda m: pico.rank_one_edit(m, 3)]
)
def test_a_planted_edit_exits_with_one(hub: LocalHub, folders: tuple[Path, Path], tmp_path: Path, plant: Any) -> None:
    model = pico.load(folders[1])
    plant(model)
    hub.add_repo("pico/edited", folder=pico.save(model, tmp_path / "edited", base_model="pico/base"))
    ran = scan("pico/edited", folder=tmp_path)
    assert ran.report is not None
    assert ran.report["verdict"]["outcome"] in {"review", "fail"}
    assert ran.code == 1
    assert scan("pico/edited", "--fail-on", "never").code == 0


def test_a_baseline_accepts_what_was_found_and_an_expired_one_does_not(
    hub: LocalHub, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model = pico.load(folders[1])
    pico.poison_row(model, 200, keep_norm=False)
    hub.add_repo("pico/edited", folder=pico.save(model, tmp_path / "edited", base_model="pico/base"))
    first = scan("pico/edited", folder=tmp_path)
    assert first.report is not None
    assert first.code == 1
    baseline = tmp_path / "baseline.json"
    entries = [
        {"fingerprint": found["fingerprint"], "reason": "a planted row, known", "expires": "2999-12-31"}
        for found in first.report["findings"]
    ]

    def again(content: Any) -> Ran:
        baseline.write_text(json.dumps(content))
        return scan("pico/edited", "--baseline", str(baseline), folder=tmp_path)

    accepted = again({"suppressions": entries})
    assert accepted.report is not None
    assert accepted.code == 0
    assert {f["suppression"]["reason"] for f in accepted.report["findings"]} == {"a planted row, known"}
    assert len(accepted.report["findings"]) >= len(first.report["findings"])
    assert accepted.report["verdict"]["reasons"] == []
    assert accepted.report["verdict"]["score"] == pytest.approx(first.report["verdict"]["score"])
    assert "accepted" in accepted.out.splitlines()[0]

    expired = again({"suppressions": [entry | {"expires": "2020-01-01"} for entry in entries]})
    assert expired.code == 1
    assert "ended on 2020-01-01" in expired.out

    broken = again({"suppressions": [{"fingerprint": "x"}]})
    assert broken.code == 2
    assert "line 1: fingerprint is missing" in broken.err
    baseline.write_bytes(b"suppressions:\n\xff")
    bad = scan("pico/edited", "--baseline", str(baseline))
    assert bad.code == 2
    assert "line 2: this is not UTF-8" in bad.err


def test_the_wrong_base_is_contradicted_and_the_rest_not_read(hub: LocalHub, tmp_path: Path) -> None:
    other = pico.save(pico.make_base(seed=99, layers=6), tmp_path / "other")
    hub.add_repo("pico/other", folder=other)
    ran = scan("pico/honest", "--base", "pico/other", folder=tmp_path)
    assert ran.report is not None
    assert ran.report["lineage"]["status"] == "contradicted"
    assert ran.report["verdict"]["outcome"] == "fail"
    assert ran.report["drift"] == []
    assert ran.code == 1


def test_missing_private_and_gated_are_told_apart(hub: LocalHub, folders: tuple[Path, Path]) -> None:
    hub.add_repo("pico/secret", folder=folders[1], private=True)
    hub.add_repo("pico/gated", folder=folders[1], gated="manual")
    missing, gated = scan("pico/nothing"), scan("pico/gated")
    assert (missing.code, scan("pico/secret").code, gated.code) == (3, 3, 3)
    assert "pico/nothing" in missing.err
    assert "gated" in gated.err
    assert "gated" not in missing.err


def test_a_gated_base_leaves_a_report_that_is_not_clean(
    hub: LocalHub, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    hub.add_repo("pico/gated", folder=folders[0], gated="manual")
    ran = scan("pico/honest", "--base", "pico/gated", folder=tmp_path)
    assert ran.code == 3
    assert ran.report is not None
    assert ran.report["verdict"]["outcome"] == "inconclusive"
    assert ran.report["subject"]["repo_id"] == "pico/honest"


def test_a_revision_that_is_missing(hub: LocalHub) -> None:
    ran = scan("pico/honest@no-such-branch")
    assert ran.code == 3
    assert "no-such-branch" in ran.err


@pytest.mark.parametrize(
    ("name", "code"), [("", 2), ("a b/c", 2), ("http://elsewhere.example/x/y", 2), ("./nowhere", 2)]
)
def test_what_is_no_model_is_a_usage_error(hub: LocalHub, name: str, code: int) -> None:
    assert scan(name).code == code


def test_an_empty_base_is_a_usage_error_and_not_the_declared_one(hub: LocalHub) -> None:
    ran = scan("pico/honest", "--base", "")
    assert ran.code == 2
    assert "is not a model" in ran.err


def test_no_weights_and_no_base_mean_nothing_to_compare(hub: LocalHub, copy: Path, tmp_path: Path) -> None:
    (copy / "README.md").write_text("# no base\n")
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    hub.add_repo("pico/orphan", folder=copy)
    orphan = scan("pico/orphan", folder=tmp_path)
    assert orphan.code == 4
    assert orphan.report is not None
    assert orphan.report["lineage"]["base"] is None
    assert orphan.report["verdict"]["outcome"] == "inconclusive"
    hub.add_repo("pico/empty", {"README.md": "---\nbase_model: pico/base\n---\n", "config.json": "{}"})
    assert scan("pico/empty", folder=tmp_path).code == 4
    hub.add_repo("pico/torn", {"README.md": "---\nbase_model: [pico/base\n---\n", "config.json": "{}"})
    torn = scan("pico/torn", folder=tmp_path)
    assert torn.code == 4
    assert "declares no base model (The card's front matter is not valid YAML" in torn.err, "why none was found"
    hub.add_repo("pico/local", {"README.md": "---\nbase_model: ./my/path\n---\n", "config.json": "{}"})
    local = scan("pico/local", folder=tmp_path)
    assert local.code == 4
    assert "1 of 1 values that name no repository on the Hub); name one with --base" in local.err


def test_another_architecture_is_not_clean(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo("pico/llama", folder=pico.save(pico.make_base("llama"), tmp_path / "llama", kind="llama"))
    ran = scan("pico/honest", "--base", "pico/llama", folder=tmp_path)
    assert ran.report is not None
    assert ran.report["verdict"]["outcome"] in {"inconclusive", "fail"}
    assert ran.code in {1, 3}


@pytest.mark.parametrize("cut", [0, 4, 8, 40, 5000, -1])
def test_truncated_weights(hub: LocalHub, copy: Path, tmp_path: Path, cut: int) -> None:
    raw = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(raw[:cut])
    hub.add_repo("pico/cut", folder=copy)
    ran = scan("pico/cut", folder=tmp_path)
    assert ran.code == 3
    assert ran.report is not None
    assert ran.report["verdict"]["outcome"] == "inconclusive"


def test_a_shard_missing_from_the_repository(hub: LocalHub, folders: tuple[Path, Path], tmp_path: Path) -> None:
    model = pico.load(folders[1])
    sharded = pico.save(model, tmp_path / "sharded", base_model="pico/base", shard_bytes=100_000)
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 2
    hub.add_repo("pico/sharded", folder=sharded)
    assert scan("pico/sharded").code == scan("pico/honest").code
    shards[-1].unlink()
    hub.add_repo("pico/torn", folder=sharded)
    ran = scan("pico/torn", folder=tmp_path)
    assert ran.report is not None
    assert ran.report["verdict"]["outcome"] != "pass"
    assert any(shards[-1].name in skip["what"] for skip in ran.report["coverage"]["skipped"])
    assert ran.code in {1, 3}


def test_nan_and_inf_are_findings_not_crashes(hub: LocalHub, copy: Path, tmp_path: Path) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    values = load_file(copy / WEIGHTS)[name]
    values[0, :3] = [np.nan, np.inf, -np.inf]
    hub.add_repo("pico/nan", folder=spoil(copy, **{name: values}))
    ran = scan("pico/nan", folder=tmp_path)
    assert ran.report is not None
    assert ran.code == 1
    assert any(name == place["tensor"] for f in ran.report["findings"] for place in f["locations"])
    assert "NaN" not in (tmp_path / "report.json").read_text().replace('"', " ").split("value")[0]


def test_zero_size_tensors_and_ten_thousand_small_ones(
    hub: LocalHub, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    many = {f"extra.{i}.weight": np.full((2, 2), i, np.float32) for i in range(10_000)}
    many["extra.none.weight"] = np.zeros((0, 8), np.float32)
    for side, folder in zip(("base", "tuned"), folders, strict=True):
        target = Path(shutil.copytree(folder, tmp_path / side))
        hub.add_repo(f"pico/many-{side}", folder=spoil(target, **many))
    ran = scan("pico/many-tuned", "--base", "pico/many-base", folder=tmp_path)
    assert ran.report is not None
    assert ran.report["lineage"]["status"] == "verified"
    assert ran.code in {0, 1, 3}


@pytest.mark.parametrize(
    "fault", [IgnoreRange(), Truncate(after_bytes=3000), Status(code=503), Status.rate_limited(60), Drop()], ids=repr
)
def test_a_server_that_never_answers_the_weights_right(hub: LocalHub, tmp_path: Path, fault: Any) -> None:
    hub.faults.add(fault, path=f"honest/resolve/{hub.sha('pico/honest')}/{WEIGHTS}", times=FOR_EVER)
    ran = scan("pico/honest", folder=tmp_path)
    assert ran.code == 3
    assert ran.report is None or ran.report["verdict"]["outcome"] == "inconclusive"


def test_a_server_that_stumbles_and_recovers_changes_nothing(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBAUDIT_PATIENCE", "60")
    monkeypatch.setenv("HUBAUDIT_TIMEOUT", "2")
    straight = scan("pico/honest", folder=tmp_path).report
    for fault in (Status(code=503), Status(code=500), Drop(), Truncate(after_bytes=900), Stall(seconds=30)):
        hub.faults.add(fault, method="GET", path=WEIGHTS)
    stumbled = scan("pico/honest", folder=tmp_path).report
    assert straight is not None
    assert stumbled is not None
    assert stumbled["drift"] == straight["drift"]


@pytest.mark.parametrize(
    "front",
    [
        "base_model: [unclosed",
        "base_model: ../../etc/passwd",
        "base_model: https://elsewhere.example/a/b",
        "base_model:\n" + "\n".join(f"- org/model-{i}" for i in range(50)),
        "base_model: pico/odd",
        "base_model: {a: 1}",
        "base_model: '\x1b[31mpico/base<script>'",
    ],
)
def test_cards_that_declare_nonsense(hub: LocalHub, copy: Path, tmp_path: Path, front: str) -> None:
    (copy / "README.md").write_text(f"---\n{front}\n---\n# odd\n")
    hub.add_repo("pico/odd", folder=copy)
    ran = scan("pico/odd", folder=tmp_path)
    assert ran.code in {3, 4}
    assert ran.report is not None
    assert ran.report["verdict"]["outcome"] == "inconclusive"
    with_base = scan("pico/odd", "--base", "pico/base", folder=tmp_path)
    assert with_base.report is not None
    assert with_base.report["lineage"]["status"] == "verified"


def test_hostile_file_names_are_neither_followed_nor_echoed(hub: LocalHub, copy: Path, tmp_path: Path) -> None:
    files: dict[str, Any] = {str(p.relative_to(copy)): p for p in copy.iterdir()}
    for name in ("../outside.txt", "a\nb.safetensors", "\x1b[31mred.bin", "<img src=x onerror=alert(1)>.pt"):
        files[name] = b"x"
    hub.add_repo("pico/hostile", files)
    html = tmp_path / "r.html"
    ran = scan("pico/hostile", "--format", "html", "--output", str(html))
    assert ran.code in {0, 1, 3}
    assert "<img src=x" not in html.read_text()
    assert not (tmp_path.parent / "outside.txt").exists()


def test_outputs_are_paired_and_checked_before_the_work(hub: LocalHub, tmp_path: Path) -> None:
    before = len(hub.log)
    missing = scan("pico/honest", "--format", "json", "--output", str(tmp_path / "no" / "r.json"))
    assert missing.code == 2
    uneven = scan("pico/honest", "--format", "json", "--output", "a.json", "--output", "b.json")
    assert uneven.code == 2
    twice = scan("pico/honest", "--output", str(tmp_path / "a.json"), "--output", str(tmp_path / "a.json"))
    assert twice.code == 2
    assert len(hub.log) == before


def test_every_format_is_written_and_renders_again_from_json(hub: LocalHub, tmp_path: Path) -> None:
    names = {
        "json": "r.json",
        "html": "r.html",
        "sarif": "r.sarif",
        "markdown": "r.md",
        "summary": "s.md",
        "table": "t.txt",
    }
    arguments = [part for f, n in names.items() for part in ("--format", f, "--output", str(tmp_path / n))]
    scan("pico/honest", *arguments)
    for form, name in names.items():
        again = tmp_path / f"again-{name}"
        command = ["report", str(tmp_path / "r.json"), "--format", form, "--output", str(again)]
        assert CliRunner().invoke(cli, command).exit_code == 0
        assert again.read_bytes() == (tmp_path / name).read_bytes(), form


def test_a_file_that_is_no_report_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "x.json")])
    assert done.exit_code == 2
    assert "x.json" in done.stderr


def test_explain_knows_every_rule_and_suggests_the_nearest() -> None:
    listed = CliRunner().invoke(cli, ["explain"])
    assert listed.stdout.splitlines() == sorted(listed.stdout.splitlines())
    rules = [line.split()[0] for line in listed.output.splitlines()]
    assert len(rules) >= 8
    for rule in rules:
        told = CliRunner().invoke(cli, ["explain", rule])
        assert told.exit_code == 0
        assert len(told.output) > 150
    wrong = CliRunner().invoke(cli, ["explain", rules[0][:-1] + "9"])
    assert wrong.exit_code == 2
    assert "did you mean" in wrong.stderr


def test_the_token_is_never_in_a_report(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = hub.token("alice")
    monkeypatch.setenv("HF_TOKEN", token)
    scan("pico/honest", "--output", str(tmp_path / "r.html"), "--output", str(tmp_path / "r.json"))
    for path in tmp_path.iterdir():
        assert token not in path.read_text()
