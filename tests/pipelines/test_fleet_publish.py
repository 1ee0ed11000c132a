from pathlib import Path

import pytest
from ledgers import NOW, begin, select
from lightjobs import scanned
from localhub.server import LocalHub

from pipelines.fleet_publish import plan_dataset, publish_dataset
from pipelines.ledger import Ledger
from pipelines.ledger_views import LedgerReader
from scanner.errors import BadReference, CouldNotConclude


@pytest.fixture
def reader(tmp_path: Path) -> LedgerReader:
    path = tmp_path / "l.sqlite"
    with Ledger(path) as ledger:
        run = begin(ledger)
        select(ledger, run, "org/calm", "org/<script>alert(1)</script>")
        with ledger.writing():
            for job in ledger.claim(run, 9, now=NOW):
                ledger.scanned(run, job, scanned(job, outcome="pass" if "calm" in job.repo_id else "fail"), now=NOW)
    with LedgerReader(path) as made:
        yield made  # type: ignore[misc]


def plan(reader: LedgerReader, name: str = "me/results", **options: bool) -> object:
    return plan_dataset(reader, name, **{"private": True, "disclose": False, "parquet": False, **options})


def test_the_card_holds_no_word_of_a_stranger(reader: LedgerReader) -> None:
    shown = plan(reader).shown  # type: ignore[attr-defined]
    assert "script" not in shown
    assert "2 rows, 1 of them with severe findings" in shown


@pytest.mark.parametrize("name", ["results", "../x", "me/re sults", "https://huggingface.co/me/x", "me/x/y"])
def test_a_dataset_has_an_owner_and_a_name(reader: LedgerReader, name: str) -> None:
    with pytest.raises(BadReference, match="not a dataset"):
        plan(reader, name)


def test_severe_findings_are_not_made_public_by_accident(reader: LedgerReader, hub_server: LocalHub) -> None:
    blocked = plan(reader, private=False)
    assert "--disclose" in str(blocked.blocked)  # type: ignore[attr-defined]
    with pytest.raises(CouldNotConclude, match="--disclose"):
        publish_dataset(reader, blocked, endpoint=hub_server.endpoint, token=hub_server.token("me"))  # type: ignore[arg-type]
    assert len(hub_server.log) == 0
    assert plan(reader, private=False, disclose=True).blocked is None  # type: ignore[attr-defined]


def test_a_public_dataset_is_not_taken_for_a_private_one(reader: LedgerReader, hub_server: LocalHub) -> None:
    token = hub_server.token("me")
    hub_server.add_repo("datasets/me/results", {"README.md": "public"})
    with pytest.raises(CouldNotConclude, match="exists and is public"):
        publish_dataset(reader, plan(reader), endpoint=hub_server.endpoint, token=token)  # type: ignore[arg-type]
    assert hub_server.paths("datasets/me/results") == (".gitattributes", "README.md")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own upload of large files
def test_a_second_run_updates_the_same_dataset(reader: LedgerReader, hub_server: LocalHub) -> None:
    pytest.importorskip("pyarrow")
    import io

    import pyarrow.parquet as pq

    token = hub_server.token("me")
    for _ in range(2):
        url = publish_dataset(reader, plan(reader, parquet=True), endpoint=hub_server.endpoint, token=token)  # type: ignore[arg-type]
        assert "/datasets/me/results/commit/" in url
    table = pq.read_table(io.BytesIO(hub_server.read("datasets/me/results", "data/results.parquet")))
    assert table.column("repo_id").to_pylist() == ["org/calm", "org/<script>alert(1)</script>"]


def test_a_refusal_says_what_to_do(reader: LedgerReader, hub_server: LocalHub) -> None:
    token = hub_server.token("somebody", "read")
    with pytest.raises(CouldNotConclude, match="HF_TOKEN"):
        publish_dataset(reader, plan(reader), endpoint=hub_server.endpoint, token=token)  # type: ignore[arg-type]
