import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.base_cache import BLOCK_GRANULES, BaseCache, SharedFile
from scanner.patience import ReadStopped

GRANULE = 64
CONTENT = Random(1).randbytes(GRANULE * 37 + 5)


def shared(name: str = "a", *, size: int = len(CONTENT), repo: str = "org/base") -> SharedFile:
    return SharedFile(endpoint="http://hub", repo_id=repo, revision="0" * 40, path=name, size_bytes=size)


def cache_in(folder: Path, *, limit: int = 1 << 20) -> BaseCache:
    return BaseCache(folder, limit, granule_bytes=GRANULE)


class Source:
    """A file far away: notes what it is asked for."""

    def __init__(self, content: bytes = CONTENT, *, delay: float = 0) -> None:
        self.content, self.delay = content, delay
        self.asked: list[tuple[int, int]] = []

    def __call__(self, at: int, into: memoryview) -> None:
        self.asked.append((at, at + len(into)))
        time.sleep(self.delay)
        into[:] = self.content[at : at + len(into)]

    @property
    def counts(self) -> list[int]:
        """How often each byte was asked for."""
        counts = [0] * len(self.content)
        for low, high in self.asked:
            for place in range(low, high):
                counts[place] += 1
        return counts


def read(cache: BaseCache, start: int, end: int, source: Callable[[int, memoryview], None], **options: object) -> bytes:
    buffer = bytearray(end - start)
    cache.fill(shared(size=len(CONTENT)), start, memoryview(buffer), source, **options)
    return bytes(buffer)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT))), min_size=1, max_size=8))
def test_any_reads_give_the_right_bytes_and_fetch_each_granule_once(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    source = Source()
    for start, end in [(min(span), max(span)) for span in spans]:
        # A new object each time: what is kept lies in the folder, not in the process.
        assert read(cache_in(folder), start, end, source) == CONTENT[start:end]
    assert max(source.counts, default=0) <= 1


def test_requests_stay_large(tmp_path: Path) -> None:
    source = Source()
    read(cache_in(tmp_path), 0, len(CONTENT), source)
    assert len(source.asked) == -(-len(CONTENT) // (GRANULE * BLOCK_GRANULES))


def test_many_threads_read_each_byte_once(tmp_path: Path) -> None:
    source = Source(delay=0.002)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(read(cache_in(tmp_path), 0, len(CONTENT), source)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 8
    assert set(source.counts) == {1}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
        lambda path: path.unlink(),
    ],
    ids=["cut", "emptied", "altered", "removed"],
)
def test_a_spoiled_granule_is_read_anew(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    read(cache_in(tmp_path), 0, len(CONTENT), Source())
    granule = next(path for path in tmp_path.rglob("3") if path.is_file())
    spoil(granule)
    source = Source()
    assert read(cache_in(tmp_path), 0, len(CONTENT), source) == CONTENT
    assert source.asked == [(3 * GRANULE, 4 * GRANULE)]
    again = Source()
    read(cache_in(tmp_path), 0, len(CONTENT), again)
    assert again.asked == []


def test_a_failed_read_keeps_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    def fail(_at: int, into: memoryview) -> None:
        into[:1] = b"x"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        read(cache_in(tmp_path), 0, 100, fail)
    assert read(cache_in(tmp_path), 0, 100, Source()) == CONTENT[:100]


def _hang(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    def stall(_at: int, _into: memoryview) -> None:
        ready.set()
        time.sleep(60)

    read(cache_in(Path(folder)), 0, 100, stall)


def test_a_killed_reader_leaves_no_lock_behind(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    reader = context.Process(target=_hang, args=(str(tmp_path), ready))
    reader.start()
    assert ready.wait(60)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(ReadStopped):
        read(cache_in(tmp_path), 0, 100, Source(), stop=stop)
    assert reader.pid is not None
    os.kill(reader.pid, signal.SIGKILL)
    reader.join()
    assert read(cache_in(tmp_path), 0, 100, Source()) == CONTENT[:100]


def test_the_folder_stays_within_its_limit_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    limit = 20_000
    cache = cache_in(tmp_path, limit=limit)
    for number in range(12):
        file = shared(repo=f"org/base{number}")
        cache.fill(file, 0, memoryview(bytearray(len(CONTENT))), Source())
        os.utime(cache._home(file.endpoint, file.repo_id, file.revision), (number, number))
        assert cache.used_bytes() <= limit + len(CONTENT) // 2
    late, early = Source(), Source()
    cache.fill(shared(repo="org/base11"), 0, memoryview(bytearray(100)), late)
    cache.fill(shared(repo="org/base0"), 0, memoryview(bytearray(100)), early)
    assert late.asked == []
    assert early.asked != []


def test_a_file_that_would_push_out_everything_is_not_kept(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, limit=len(CONTENT))
    source = Source()
    for _ in range(2):
        assert read(cache, 10, 200, source) == CONTENT[10:200]
    assert source.asked == [(10, 200)] * 2


def test_without_a_place_to_write_the_bytes_still_come(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    file = shared()
    # Where the folder of the base would be, there is a file: nothing below it can be made.
    cache._home(file.endpoint, file.repo_id, file.revision).write_bytes(b"")
    source = Source()
    assert read(cache, 10, 200, source) == CONTENT[10:200]
    assert cache.document((file.endpoint, file.repo_id, file.revision), "x", lambda: b"made") == b"made"


def test_documents_are_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        time.sleep(0.02)
        return b"text"

    threads = [
        threading.Thread(target=lambda: cache_in(tmp_path).document(("hub", "org/x"), "../../../escape", make))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all(tmp_path in path.parents for path in tmp_path.rglob("*"))
    assert not (tmp_path.parent / "escape").exists()
