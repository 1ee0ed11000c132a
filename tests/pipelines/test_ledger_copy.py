import time
from pathlib import Path

import pytest
from ledgers import NOW, begin, dump, select
from lightjobs import scanned

from pipelines.ledger import Ledger
from pipelines.ledger_copy import KeptCopy, restore, save
from pipelines.ledger_file import LedgerError
from pipelines.ledger_views import LedgerReader


def scan(ledger: Ledger, name: str) -> None:
    run = begin(ledger, models=name)
    select(ledger, run, name)
    with ledger.writing():
        for job in ledger.claim(run, 9, now=NOW):
            ledger.scanned(run, job, scanned(job), now=NOW)


def test_a_copy_made_while_it_is_written_is_whole(tmp_path: Path) -> None:
    path, copy = tmp_path / "l.sqlite", tmp_path / "mount" / "l.sqlite"
    copy.parent.mkdir()
    with Ledger(path) as ledger:
        scan(ledger, "org/a")
        # What the copy shows is not yet in the file itself, but in its log.
        save(path, copy)
        with LedgerReader(copy) as reader:
            assert reader.counts().done == 1
        scan(ledger, "org/b")
    assert [item.name for item in copy.parent.iterdir()] == ["l.sqlite"]


def test_a_new_machine_goes_on_from_the_copy(tmp_path: Path) -> None:
    path, copy, elsewhere = tmp_path / "l.sqlite", tmp_path / "copy", tmp_path / "new.sqlite"
    with Ledger(path) as ledger, KeptCopy(path, copy, interval_seconds=0.05):
        scan(ledger, "org/a")
        deadline = time.monotonic() + 60
        while not copy.exists():
            assert time.monotonic() < deadline, "no copy was made while the ledger is open"
            time.sleep(0.02)
        scan(ledger, "org/b")
    assert restore(copy, elsewhere)
    assert dump(elsewhere) == dump(path)
    with Ledger(elsewhere) as ledger:
        scan(ledger, "org/c")
    assert not restore(copy, elsewhere)


def test_without_a_copy_one_begins_anew(tmp_path: Path) -> None:
    assert not restore(tmp_path / "none", tmp_path / "l.sqlite")
    assert not (tmp_path / "l.sqlite").exists()


def test_a_mount_that_is_gone_is_said(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path).close()
    with pytest.raises(LedgerError, match="check the mount"):
        save(path, tmp_path / "gone" / "l.sqlite")
    assert not list(tmp_path.glob("*.copy"))
