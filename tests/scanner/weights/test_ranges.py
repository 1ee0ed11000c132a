import itertools
import threading
import time
from concurrent.futures import CancelledError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from localhub.faults import FOR_EVER, IgnoreRange, Stall, Status, Truncate
from localhub.server import LocalHub
from quickhub import pinned, quick_hub

from scanner.errors import FileNotFound, HubUnreachable
from scanner.hub import Hub
from scanner.patience import ReadStopped
from scanner.records import RepoRef
from scanner.weights.ranges import ByteRange, RangeReader

A = bytes(range(256)) * 800  # 204,800 bytes
B = bytes(reversed(range(256))) * 400
FILES = {"a.safetensors": A, "b.safetensors": B}
SMALL = {"chunk_bytes": 10_000, "gap_bytes": 500, "ahead_bytes": 50_000, "in_flight": 4}


@pytest.fixture
def server(hub_server: LocalHub) -> LocalHub:
    hub_server.add_repo("org/name", FILES)
    return hub_server


@pytest.fixture
def hub(server: LocalHub) -> Hub:
    return quick_hub(server)


@pytest.fixture
def ref(hub: Hub) -> RepoRef:
    return pinned(hub, "org/name")


def a(start: int, end: int) -> ByteRange:
    return ByteRange("a.safetensors", start, end)


def b(start: int, end: int) -> ByteRange:
    return ByteRange("b.safetensors", start, end)


def until_the_threads_have_ended() -> None:
    deadline = time.monotonic() + 60
    while any(thread.name.startswith("range") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "threads remain"
        time.sleep(0.02)


def expected(ranges: list[ByteRange]) -> list[bytes]:
    return [FILES[item.file][item.start : item.end] for item in ranges]


@pytest.mark.parametrize(
    ("ranges", "requests", "size"),
    [
        ([a(0, 8), a(8, 3000), a(3100, 5000)], 1, 5000),  # touching, and a small gap
        ([a(0, 100), a(700, 800)], 2, 200),  # a gap beyond 500
        ([a(0, 6000), a(6000, 12_000)], 2, 12_000),  # together more than a chunk
        ([a(0, 100), b(0, 100), a(100, 200)], 3, 300),  # files alternate
        ([a(0, 100), a(50, 150), a(0, 10)], 1, 150),  # overlapping
        ([a(500, 600), a(400, 500)], 2, 200),  # backwards
        ([a(0, 35_000)], 4, 35_000),  # larger than a chunk
        ([a(0, 120_000), a(0, 1)], 13, 120_001),  # larger than all that may be ahead
        ([a(7, 7), b(3, 3)], 0, 0),  # empty
        ([], 0, 0),
        ([a(0, len(A)), b(0, len(B))], 32, len(A) + len(B)),
    ],
)
def test_ranges_come_in_order_in_few_requests(
    hub: Hub, ref: RepoRef, ranges: list[ByteRange], requests: int, size: int
) -> None:
    with RangeReader(hub, ref, **SMALL) as reader:
        assert [bytes(item) for item in reader.read(ranges)] == expected(ranges)
        assert (reader.requests, reader.bytes_read) == (requests, size)


@settings(max_examples=25, deadline=None)
@given(
    ranges=st.lists(
        st.builds(
            lambda file, start, size: ByteRange(file, start, min(start + size, len(FILES[file]))),
            st.sampled_from(sorted(FILES)),
            st.integers(0, len(B)),
            st.integers(0, 30_000),
        ),
        max_size=12,
    ),
    chunk=st.integers(1000, 40_000),
    gap=st.integers(0, 5000),
    ahead=st.integers(1, 100_000),
)
def test_any_ranges_under_any_limits_give_the_bytes_of_the_file(ranges, chunk: int, gap: int, ahead: int) -> None:
    hub, ref = _shared()
    with RangeReader(hub, ref, chunk_bytes=chunk, gap_bytes=gap, ahead_bytes=ahead, in_flight=3) as reader:
        assert [bytes(item) for item in reader.read(ranges)] == expected(ranges)


def _shared() -> tuple[Hub, RepoRef]:
    from localhub.environment import shared_server

    server = shared_server()
    server.reset()
    server.add_repo("org/name", FILES)
    hub = quick_hub(server)
    return hub, pinned(hub, "org/name")


def test_buffers_are_read_only_and_stay_valid(hub: Hub, ref: RepoRef) -> None:
    ranges = [a(n * 5000, n * 5000 + 5000) for n in range(40)]
    with RangeReader(hub, ref, **SMALL) as reader:
        kept = list(reader.read(ranges))
    assert [bytes(item) for item in kept] == expected(ranges)
    assert all(item.readonly for item in kept)


def test_several_requests_are_in_flight(server: LocalHub, hub: Hub, ref: RepoRef) -> None:
    server.configure(latency_seconds=0.3)
    ranges = [a(n * 10_000, n * 10_000 + 10_000) for n in range(16)]
    with RangeReader(hub, ref, chunk_bytes=10_000, in_flight=8) as reader:
        started = time.monotonic()
        assert len(list(reader.read(ranges))) == 16
        assert time.monotonic() - started < 0.3 * 15  # one after the other takes longer, eight at a time an eighth


def test_no_more_is_read_ahead_than_allowed(server: LocalHub, hub: Hub, ref: RepoRef) -> None:
    ranges = [a(n * 10_000, n * 10_000 + 10_000) for n in range(20)]
    drawn = itertools.count()
    with RangeReader(hub, ref, **SMALL) as reader:
        buffers = reader.read(item for item in ranges if next(drawn) >= 0)
        next(buffers)
        time.sleep(0.3)
        assert reader.bytes_read <= 50_000
        assert next(drawn) <= 8
        assert len(list(buffers)) == 19


def test_temporary_faults_are_invisible(server: LocalHub, ref: RepoRef) -> None:
    for fault in (Status(code=503), Truncate(after_bytes=100), IgnoreRange(), Stall(seconds=30, after_bytes=100)):
        server.faults.add(fault, method="GET")
    with RangeReader(quick_hub(server, timeout_seconds=1.0), ref, **SMALL) as reader:
        assert b"".join(reader.read([a(0, len(A))])) == A
        assert reader.requests == 21
    assert server.faults.pending == 0


def test_a_lasting_fault_raises_once_and_cancels_the_rest(server: LocalHub, hub: Hub, ref: RepoRef) -> None:
    server.faults.add(Status(code=500), method="GET", after=3, times=FOR_EVER)
    got: list[bytes] = []
    with RangeReader(hub, ref, chunk_bytes=1000, in_flight=2, gap_bytes=0) as reader:
        buffers = reader.read([a(n * 2000, n * 2000 + 1000) for n in range(100)])
        with pytest.raises(HubUnreachable, match=r"'a.safetensors' of org/name could not be read: .* 500"):
            got.extend(bytes(item) for item in buffers)
    assert len(got) <= 3
    assert got == expected([a(n * 2000, n * 2000 + 1000) for n in range(len(got))])
    until_the_threads_have_ended()
    assert len(server.log) < 40


def test_a_missing_file_raises(hub: Hub, ref: RepoRef) -> None:
    with RangeReader(hub, ref) as reader, pytest.raises(FileNotFound):
        list(reader.read([ByteRange("nope", 0, 5)]))


@pytest.mark.parametrize("item", [a(5, 4), a(-1, 4), a(0, len(A) + 1)])
def test_impossible_ranges_are_mistakes_of_ours(hub: Hub, ref: RepoRef, item: ByteRange) -> None:
    with RangeReader(hub, ref) as reader, pytest.raises(ValueError, match=r"range|not inside"):
        list(reader.read([item]))


def test_stopping_early_gives_the_threads_back(server: LocalHub, hub: Hub, ref: RepoRef) -> None:
    server.faults.add(Stall(seconds=3, after_bytes=10), method="GET", from_byte=1, times=FOR_EVER)
    started = time.monotonic()
    with RangeReader(hub, ref, **SMALL) as reader:
        buffers = reader.read([a(0, 10_000), a(20_000, 120_000)])
        next(buffers)
        buffers.close()
    assert time.monotonic() - started < 2.5, "it waited for an answer that nobody wants any more"
    until_the_threads_have_ended()


def test_closing_the_reader_ends_its_readings(server: LocalHub, hub: Hub, ref: RepoRef) -> None:
    server.configure(latency_seconds=0.05)
    with RangeReader(hub, ref, **{**SMALL, "in_flight": 1}) as reader:
        buffers = reader.read([a(n * 10_000, n * 10_000 + 10_000) for n in range(20)])
        assert bytes(next(buffers)) == A[:10_000]
    with pytest.raises((RuntimeError, ReadStopped, CancelledError)):
        list(buffers)
    assert server.log.count(method="GET", path="/resolve/") <= 3


def test_two_readings_may_run_at_a_time(hub: Hub, ref: RepoRef) -> None:
    with RangeReader(hub, ref, **SMALL) as reader:
        pairs = zip(
            reader.read([a(n * 1000, n * 1000 + 1000) for n in range(50)]),
            reader.read([b(n * 1000, n * 1000 + 1000) for n in range(50)]),
            strict=True,
        )
        both = [(bytes(x), bytes(y)) for x, y in pairs]
    assert b"".join(x for x, _ in both) == A[:50_000]
    assert b"".join(y for _, y in both) == B[:50_000]


def test_files_in_the_cdn_are_located_once_each(server: LocalHub) -> None:
    server.configure(cdn=True)
    hub = quick_hub(server)
    with RangeReader(hub, pinned(hub, "org/name"), **SMALL) as reader:
        assert b"".join(reader.read([a(0, len(A)), b(0, len(B))])) == A + B
    assert server.log.count(method="HEAD") == 2
    assert server.log.count(method="GET", side="cdn") == 32
