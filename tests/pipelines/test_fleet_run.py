import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lightjobs
import pytest
from ledgers import dump
from localhub.server import LocalHub

from pipelines.engines.seam import Answer, Entry, ScanJob
from pipelines.fleet import FleetPatience
from pipelines.fleet_job import FleetSetup
from pipelines.fleet_progress import Silent
from pipelines.fleet_run import Resources, RunReport, run_fleet, stop_signs
from pipelines.ledger import Ledger
from pipelines.selection import Filters, Selection
from pipelines.settings import Settings

CARD = "---\nbase_model: org/base\n---\n"


class Heard(Silent):
    """Remembers what was said, and may act on it."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.totals: tuple[int, int] = (0, 0)
        self._act = act

    def began(self, *, total: int, due: int, due_bytes: int) -> None:
        self.totals = (total, due)

    def ended(self, job: ScanJob, answer: Answer, *, again: bool) -> None:
        self.said.append(job.repo_id)
        self._act()

    def note(self, event: str, text: str) -> None:
        self.said.append(event)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunReport]:
    def go(selection: Selection, **options: object) -> RunReport:
        pause = float(options.pop("pause", 0.0))  # type: ignore[arg-type]
        settings = Settings(endpoint=str(options.pop("endpoint", "http://127.0.0.1:9")), timeout_seconds=10.0)
        resources = Resources(workers=1, threads=2, patience=FleetPatience(wait_seconds=0.01))
        options = {"observer": Silent(), "entry": lambda _setup: lightjobs.entry(pause=pause), **options}
        observer = options.pop("observer")
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            return run_fleet(ledger, selection, settings, resources, observer, **options)  # type: ignore[arg-type]

    return go


@pytest.fixture
def ids(tmp_path: Path) -> Callable[..., Selection]:
    def write(*names: str) -> Selection:
        path = tmp_path / "ids.txt"
        path.write_text("\n".join(names))
        return Selection(models=path)

    return write


def test_a_run_reports_what_it_did_and_what_is_on_record(
    run: Callable[..., RunReport], ids: Callable[..., Selection]
) -> None:
    heard = Heard()
    report = run(ids("calm/a", "calm/b", "broken/c", "calm/a", "not an id"), observer=heard)
    assert (report.entries, report.counts.done, report.counts.failed, report.counts.pending) == (3, 2, 1, 0)
    assert report.verdicts == {"pass": 2, "failed": 1}
    assert report.problems.counts == {"named more than once": 1, "not a repository on the Hub": 1}
    assert heard.totals == (3, 3)
    assert sorted(heard.said) == ["broken/c", "calm/a", "calm/b"]


def test_a_stop_file_ends_a_run_and_the_next_goes_on(
    run: Callable[..., RunReport], ids: Callable[..., Selection], tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    selection = ids(*(f"calm/{number}" for number in range(12)))
    first = run(selection, observer=Heard(stop.touch), stop_file=stop, pause=0.1)
    assert first.summary.stopped == f"{stop} is there"
    assert 0 < first.counts.done < 12
    stop.unlink()
    second = run(selection, stop_file=stop)
    assert second.resumed
    assert second.counts.done == 12
    assert first.summary.scanned + second.summary.scanned == 12
    runs = dump(tmp_path / "ledger.sqlite")["runs"]
    assert len(runs) == 1


def test_ctrl_c_finishes_what_is_in_flight(run: Callable[..., RunReport], ids: Callable[..., Selection]) -> None:
    selection = ids(*(f"calm/{number}" for number in range(12)))
    heard = Heard(lambda: os.kill(os.getpid(), signal.SIGINT) if len(heard.said) == 1 else None)
    before = signal.getsignal(signal.SIGINT)
    report = run(selection, observer=heard, pause=0.2)
    assert report.summary.stopped == "Ctrl-C"
    assert 1 < report.counts.done < 12
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_does_not_wait() -> None:
    def press_twice() -> None:
        with stop_signs(None) as look:
            os.kill(os.getpid(), signal.SIGINT)
            deadline = time.monotonic() + 5
            while look() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert look() == "Ctrl-C"
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        press_twice()


def test_in_a_thread_only_the_file_counts(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def look() -> None:
        with stop_signs(tmp_path / "stop") as look:
            seen.append(look())
            (tmp_path / "stop").touch()
            seen.append(look())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [None, f"{tmp_path / 'stop'} is there"]


def _as_listed(setup: FleetSetup) -> Entry:
    """Workers that answer with the commit that the listing has shown."""
    return Entry(function="listedjobs:prepare", setup=setup)


def test_a_second_run_scans_only_what_has_changed(
    run: Callable[..., RunReport], hub_server: LocalHub, tmp_path: Path
) -> None:
    hub_server.add_repo("org/base", {"README.md": "x"})
    for name in ("a", "b", "c"):
        hub_server.add_repo(f"me/{name}", {"README.md": CARD})
    options = {"endpoint": hub_server.endpoint, "entry": _as_listed}
    selection = Selection(author="me")
    assert run(selection, **options).summary.scanned == 3
    hub_server.log.clear()
    assert run(selection, **options).summary.scanned == 0
    # One page of the listing, and the head of the one base.
    assert len(hub_server.log) == 2
    changed = hub_server.commit("me/b", {"README.md": CARD + "changed"})
    heard = Heard()
    assert run(selection, observer=heard, **options).summary.scanned == 1
    assert heard.said == ["me/b"]
    hub_server.commit("org/base", {"README.md": "changed"})
    assert run(selection, **options).summary.scanned == 3
    tables = dump(tmp_path / "ledger.sqlite")
    assert len(tables["results"]) == 3 + 1 + 3
    assert any(changed in row for row in tables["results"])
    counts = [json.loads(str(row[7])) for row in tables["runs"]]
    assert counts == [{"pass": 3, "pending": 0}] * 4


def test_a_limit_and_a_filter_are_part_of_the_question(run: Callable[..., RunReport], hub_server: LocalHub) -> None:
    for name in ("a", "b", "c"):
        hub_server.add_repo(f"me/{name}", {"README.md": CARD}, downloads=len(name))
    options = {"endpoint": hub_server.endpoint, "entry": _as_listed}
    assert run(Selection(author="me", filters=Filters(limit=2)), **options).counts.total == 2
    assert run(Selection(author="me"), **options).counts.total == 3


def test_what_vanishes_between_plan_and_run_fails_with_a_reason(
    run: Callable[..., RunReport], ids: Callable[..., Selection], hub_server: LocalHub
) -> None:
    report = run(ids("org/vanished"), endpoint=hub_server.endpoint, entry=None)
    assert (report.counts.failed, report.verdicts) == (1, {"failed": 1})
