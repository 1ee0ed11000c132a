import json
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.publishing.diary import Diary
from pipelines.publishing.errors import DailyCapReached
from scanner.errors import CouldNotConclude

HUB = "http://hub"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_a_repository_counts_once_a_day(tmp_path: Path) -> None:
    now = NOON
    diary = Diary(tmp_path / "diary.json", cap=2, clock=lambda: now)
    for name in ("a/1", "a/1", "a/2", "a/1"):
        diary.reserve(HUB, name)
    with pytest.raises(DailyCapReached, match="tomorrow"):
        diary.reserve(HUB, "a/3")
    diary.reserve("http://other", "a/3")
    assert diary.written_today(HUB) == {"a/1", "a/2"}
    now = NOON + timedelta(hours=12)
    diary.reserve(HUB, "a/3")
    assert diary.written_today(HUB) == {"a/3"}


def test_the_day_is_that_of_utc(tmp_path: Path) -> None:
    from datetime import timezone

    east = timezone(timedelta(hours=13))
    Diary(tmp_path / "d", clock=lambda: NOON).reserve(HUB, "a/1")
    assert Diary(tmp_path / "d", clock=lambda: datetime(2026, 11, 21, 12, tzinfo=east)).written_today(HUB) == {"a/1"}


def test_what_is_released_can_be_used_again(tmp_path: Path) -> None:
    diary = Diary(tmp_path / "diary.json", cap=1)
    diary.reserve(HUB, "a/1")
    diary.release(HUB, "a/1")
    diary.release(HUB, "a/1")
    diary.reserve(HUB, "a/2")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 99}', '{"version": 1, "written": {"h": 5}}', '"x"', "[" * 9999]
)
def test_a_damaged_file_forgets_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "diary.json"
    path.write_text(content)
    with pytest.raises(CouldNotConclude, match="damaged"):
        Diary(path).reserve(HUB, "a/1")
    assert path.read_text() == content


def _reserve_many(path: Path, start: int) -> None:
    for number in range(start, start + 20):
        diary = Diary(path, cap=1000)
        with diary.alone():
            diary.reserve(HUB, f"a/{number}")


def test_processes_do_not_lose_each_others_counts(tmp_path: Path) -> None:
    path = tmp_path / "state" / "diary.json"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_reserve_many, args=(path, start)) for start in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    (names,) = json.loads(path.read_text())["written"].values()
    assert len(names) == 40
