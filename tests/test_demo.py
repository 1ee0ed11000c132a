"""The demo keeps its promises: every verdict, the pull request, and every report, as a newcomer gets them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_demo_gives_the_promised_verdicts_and_opens_one_pull_request(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--output", str(tmp_path)],
        cwd=ROOT / "tests" / "support",
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "opened http://127.0.0.1:" in done.stdout
    outcomes = {}
    for name in ("honest", "poisoned-row", "rank-one", "wrong-base"):
        report = json.loads((tmp_path / f"demo--sentiment-{name}.json").read_text())
        outcomes[name] = report["verdict"]["outcome"]
        assert {p.suffix for p in tmp_path.glob(f"demo--sentiment-{name}.*")} == {".json", ".html", ".md", ".sarif"}
        if name == "poisoned-row":
            tokens = [t["text"] for f in report["findings"] for place in f["locations"] for t in place["tokens"]]
            assert tokens[0] == "cf"
        if name == "rank-one":
            (edited,) = [f for f in report["findings"] if f["rule_id"] in {"HA301", "HA302"}]
            assert edited["locations"][0]["tensor"] == "bert.encoder.layer.2.output.dense.weight"
        assert (report["probe"] is not None) is (name != "wrong-base")
        confirmed = [f["locations"][0]["tokens"][0]["text"] for f in report["findings"] if f["rule_id"] == "HA001"]
        assert confirmed == (["cf"] if name == "poisoned-row" else []), "the edit of one matrix acts in sentences alone"
    assert outcomes == {"honest": "pass", "poisoned-row": "fail", "rank-one": "fail", "wrong-base": "fail"}
