import sqlite3
import threading
from pathlib import Path

import pytest

from pipelines.serving.events import Wanted
from pipelines.serving.queue import COMMENTS_A_DAY, DAY_SECONDS, KEPT_SECONDS, Queue, QueueError


def commit(repo_id: str, sha: str) -> Wanted:
    return Wanted(repo_id=repo_id, cause=f"commit:{sha}")


def comment(repo_id: str, key: str, thread: int = 1) -> Wanted:
    return Wanted(repo_id=repo_id, cause=f"comment:{key}", revision=f"refs/pr/{thread}", thread=thread)


@pytest.fixture
def queue(tmp_path: Path):
    opened = Queue(tmp_path / "queue.sqlite", limit=5)
    yield opened
    opened.close()


def test_jobs_come_out_in_order(queue: Queue) -> None:
    for number in range(3):
        assert queue.enter(commit(f"a/{number}", "1"), now=number) == "queued"
    jobs = [queue.claim(now=10) for _ in range(4)]
    assert [job and job.repo_id for job in jobs] == ["a/0", "a/1", "a/2", None]
    assert queue.counts() == {"due": 0, "running": 3, "done": 0, "failed": 0}


def test_waiting_commits_of_one_repository_become_one(queue: Queue) -> None:
    assert [queue.enter(commit("a/b", sha), now=0) for sha in "1223"] == ["queued", "merged", "known", "merged"]
    job = queue.claim(now=1)
    assert job is not None
    assert job.cause == "commit:3"
    assert queue.claim(now=1) is None


def test_one_job_of_a_repository_at_a_time(queue: Queue) -> None:
    queue.enter(commit("a/b", "1"), now=0)
    first = queue.claim(now=0)
    assert first is not None
    assert queue.enter(commit("a/b", "2"), now=1) == "queued"
    assert queue.enter(comment("a/b", "x"), now=1) == "queued"
    assert queue.enter(commit("c/d", "1"), now=2) == "queued"
    second = queue.claim(now=3)
    assert second is not None
    assert second.repo_id == "c/d"
    assert queue.claim(now=3) is None
    queue.done(first, "", now=4)
    third = queue.claim(now=4)
    assert third is not None
    assert third.cause == "commit:2"


def test_the_same_event_again_is_known_until_long_after(queue: Queue) -> None:
    queue.enter(commit("a/b", "1"), now=0)
    job = queue.claim(now=0)
    assert job is not None
    assert queue.enter(commit("a/b", "1"), now=1) == "known"
    queue.done(job, "", now=1)
    assert queue.enter(commit("a/b", "1"), now=2) == "known"
    queue.enter(commit("c/d", "1"), now=2)
    other = queue.claim(now=2)
    assert other is not None
    queue.done(other, "", now=2 + KEPT_SECONDS)
    assert queue.enter(commit("a/b", "1"), now=3 + KEPT_SECONDS) == "queued"


def test_a_failed_event_can_be_sent_again(queue: Queue) -> None:
    queue.enter(commit("a/b", "1"), now=0)
    job = queue.claim(now=0)
    assert job is not None
    queue.failed(job, "why", now=1, again_at=None)
    assert queue.counts()["failed"] == 1
    assert queue.enter(commit("a/b", "1"), now=2) == "queued"
    again = queue.claim(now=2)
    assert again is not None
    assert again.tries == 0


def test_an_attempt_without_a_result_comes_again_at_its_time(queue: Queue) -> None:
    queue.enter(commit("a/b", "1"), now=0)
    job = queue.claim(now=0)
    assert job is not None
    queue.failed(job, "why", now=1, again_at=60)
    assert queue.claim(now=59) is None
    again = queue.claim(now=60)
    assert again is not None
    assert again.tries == 1


def test_the_queue_is_bounded_and_merging_needs_no_room(queue: Queue) -> None:
    assert [queue.enter(commit(f"a/{n}", "1"), now=0) for n in range(6)] == ["queued"] * 5 + ["full"]
    assert queue.enter(commit("a/0", "2"), now=0) == "merged"
    assert queue.enter(comment("a/0", "x"), now=0) == "full"


def test_comments_on_one_repository_are_limited(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", limit=100)
    entered = [queue.enter(comment("a/b", str(n)), now=n) for n in range(COMMENTS_A_DAY + 1)]
    assert entered == ["queued"] * COMMENTS_A_DAY + ["too_often"]
    assert queue.enter(comment("c/d", "1"), now=5) == "queued"
    assert queue.enter(comment("a/b", "late"), now=DAY_SECONDS + 5) == "queued"
    queue.close()


def test_nothing_is_lost_when_the_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    first = Queue(path)
    first.enter(commit("a/b", "1"), now=0)
    first.enter(commit("c/d", "1"), now=1)
    assert first.claim(now=1) is not None
    first.close()
    second = Queue(path)
    assert second.counts()["due"] == 2
    job = second.claim(now=2)
    assert job is not None
    assert (job.repo_id, job.tries) == ("a/b", 0)
    second.close()


def test_a_second_server_is_kept_out(tmp_path: Path, queue: Queue) -> None:
    with pytest.raises(QueueError, match="in use"):
        Queue(tmp_path / "queue.sqlite")


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()
    with pytest.raises(QueueError, match="something else"):
        Queue(path)
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(QueueError, match="damaged"):
        Queue(path)


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    Queue(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(QueueError, match="newer"):
        Queue(path)


def test_many_threads_claim_each_job_once(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q")
    for number in range(60):
        queue.enter(commit(f"a/{number}", "1"), now=0)
    claimed: list[str] = []

    def work() -> None:
        while (job := queue.claim(now=1)) is not None:
            claimed.append(job.repo_id)
            queue.done(job, "", now=1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(f"a/{number}" for number in range(60))
    queue.close()
