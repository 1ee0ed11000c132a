import json
from pathlib import Path

import pytest
from ledgers import NOW, begin, select
from lightjobs import scanned

from pipelines.engines.seam import Failed
from pipelines.export import export_jsonl, export_parquet
from pipelines.ledger import Ledger
from pipelines.ledger_views import LedgerReader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "l.sqlite"
    with Ledger(made) as ledger:
        run = begin(ledger)
        select(ledger, run, *(f"org/{number}" for number in range(5)))
        with ledger.writing():
            first, second, *rest = ledger.claim(run, 4, now=NOW)
            ledger.scanned(run, first, scanned(first, outcome="fail", score=0.5), now=NOW)
            ledger.failed(run, second, Failed(reason="gone\ud800", cause="RepoNotFound", transient=False), now=NOW)
            for job in rest:
                ledger.scanned(run, job, scanned(job), now=NOW)
    return made


def test_both_forms_say_the_same(path: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    with LedgerReader(path) as reader:
        assert export_jsonl(reader, tmp_path / "x.jsonl") == 5
        assert export_parquet(reader, tmp_path / "x.parquet") == 5
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert lines == table
    states = [row["state"] for row in table]
    assert states == ["done", "failed", "done", "done", "due"]
    assert table[0]["findings"] == [{"rule_id": "HA201", "severity": "high", "title": "Rows", "fingerprint": "f" * 16}]
    assert (table[4]["outcome"], table[4]["findings"]) == (None, None)


def test_a_failed_export_leaves_the_old_one(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out" / "x.jsonl"
    target.parent.mkdir()
    target.write_text("old")
    with LedgerReader(path) as reader:

        def torn() -> object:
            yield {"job_id": 1}

        monkeypatch.setattr(reader, "jobs", torn)
        with pytest.raises(KeyError):
            export_jsonl(reader, target)
    assert target.read_text() == "old"
    assert [item.name for item in target.parent.iterdir()] == ["x.jsonl"]


def test_a_folder_that_is_not_there(path: Path, tmp_path: Path) -> None:
    with LedgerReader(path) as reader, pytest.raises(OSError, match="No such file"):
        export_jsonl(reader, tmp_path / "none" / "x.jsonl")
