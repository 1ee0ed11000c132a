"""Range reads against servers that break every promise."""

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from localhub.faults import FOR_EVER, Drop, IgnoreRange, ShortRange, Stall, Status, Truncate, WrongRange
from localhub.server import LocalHub
from quickhub import pinned, quick_hub
from scripted import Call, reply, scripted

from scanner.errors import HubRateLimited, HubUnreachable, RepoGated, RepoUnavailable
from scanner.hub import Hub, RemoteFile
from scanner.patience import ReadStopped
from scanner.records import RepoRef

BODY = bytes(range(256)) * 4096
START, END = 1000, 900_000
FAULTS = {
    "ignores the range": IgnoreRange(),
    "states another range": WrongRange(),
    "states an earlier range": WrongRange(shift_bytes=-1),
    "sends less and says so": ShortRange(),
    "cuts the body": Truncate(after_bytes=5000),
    "sends no body": Truncate(),
    "drops the connection": Drop(),
    "stalls": Stall(seconds=30),
    "stalls in the body": Stall(seconds=30, after_bytes=5000),
    "429": Status.rate_limited(0),
    "503": Status.retry_after(503, 0),
    "500": Status(code=500),
}


@pytest.fixture(params=[False, True], ids=["hub", "cdn"])
def server(request, hub_server: LocalHub) -> LocalHub:
    hub_server.configure(cdn=request.param)
    hub_server.add_repo("org/name", {"model.safetensors": BODY})
    return hub_server


def located(hub: Hub) -> RemoteFile:
    return hub.locate(pinned(hub, "org/name"), "model.safetensors")


def test_a_range_is_one_request(server: LocalHub) -> None:
    hub = quick_hub(server)
    remote = located(hub)
    assert remote.size_bytes == len(BODY)
    before = hub.requests
    assert hub.read_range(remote, START, END) == BODY[START:END]
    assert hub.requests == before + 1
    assert hub.read_range(remote, 0, len(BODY)) == BODY
    assert hub.read_range(remote, len(BODY) - 1, len(BODY)) == BODY[-1:]
    assert hub.read_range(remote, 7, 7) == b""
    assert hub.requests == before + 3


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, len(BODY) + 1), (len(BODY), len(BODY) + 1)])
def test_a_range_outside_the_file_is_a_mistake_of_ours(server: LocalHub, start: int, end: int) -> None:
    hub = quick_hub(server)
    with pytest.raises(ValueError, match="not inside a file"):
        hub.read_range(located(hub), start, end)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_bad_answer_is_asked_for_again(server: LocalHub, fault) -> None:
    hub = quick_hub(server, timeout_seconds=1.0 if isinstance(fault, Stall) else 10.0)
    remote = located(hub)
    before = hub.requests
    server.faults.add(fault, method="GET", times=2)
    assert hub.read_range(remote, START, END) == BODY[START:END]
    assert hub.requests == before + 3
    assert server.faults.pending == 0


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_bad_answers_without_end_are_an_error_and_never_bytes(server: LocalHub, fault) -> None:
    remote = located(quick_hub(server))
    hub = quick_hub(server, timeout_seconds=0.15 if isinstance(fault, Stall) else 10.0)
    server.faults.add(fault, method="GET", times=FOR_EVER)
    expected = HubRateLimited if fault == FAULTS["429"] else HubUnreachable
    with pytest.raises(expected, match=r"^'model.safetensors' of org/name could not be read: .*run again"):
        hub.read_range(remote, START, END)


def test_a_whole_file_with_200_is_what_was_asked_for(server: LocalHub) -> None:
    hub = quick_hub(server)
    remote = located(hub)
    before = hub.requests
    server.faults.add(IgnoreRange(), method="GET")
    assert hub.read_range(remote, 0, len(BODY)) == BODY
    assert hub.requests == before + 1


def test_an_expired_address_is_asked_for_again(hub_server: LocalHub) -> None:
    hub_server.configure(cdn=True, cdn_url_seconds=0.05)
    hub_server.add_repo("org/name", {"model.safetensors": BODY})
    hub = quick_hub(hub_server)
    remote = located(hub)
    time.sleep(1.1)
    hub_server.configure(cdn_url_seconds=600)
    assert hub.read_range(remote, START, END) == BODY[START:END]
    assert hub_server.log.count(side="cdn", status=403) == 1
    assert hub_server.log.count(method="HEAD") == 2
    assert hub.read_range(remote, 0, 9) == BODY[:9]  # the stale record is good for further reads
    assert hub_server.log.count(method="HEAD") == 2


def test_many_readers_of_an_expired_address_ask_once(hub_server: LocalHub) -> None:
    hub_server.configure(cdn=True)
    hub_server.add_repo("org/name", {"model.safetensors": BODY})
    hub = quick_hub(hub_server)
    ref = pinned(hub, "org/name")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: hub.locate(ref, "model.safetensors"), range(8)))) == 1
    assert hub_server.log.count(method="HEAD") == 1
    remote = hub.locate(ref, "model.safetensors")
    hub_server.faults.add(Status(code=403), method="GET", path="/cdn/", times=8)
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(lambda i: hub.read_range(remote, i * 1000, i * 1000 + 1000), range(8))
        assert b"".join(parts) == BODY[:8000]


def test_a_permission_that_is_withdrawn_is_told(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/name", {"model.safetensors": BODY})
    hub = quick_hub(hub_server)
    remote = located(hub)
    hub_server.faults.add(Status(code=403, headers={"X-Error-Code": "GatedRepo"}), method="GET")
    with pytest.raises(RepoGated):
        hub.read_range(remote, 0, 10)
    hub_server.faults.add(Status(code=403), method="GET")
    with pytest.raises(RepoUnavailable, match="forbids reading"):
        hub.read_range(remote, 0, 10)


def test_a_reader_can_be_stopped(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/name", {"model.safetensors": BODY})
    hub = quick_hub(hub_server, first_wait_seconds=30.0, max_wait_seconds=300.0)
    remote = located(hub)
    hub_server.faults.add(Status(code=503), method="GET")
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    with pytest.raises(ReadStopped):
        hub.read_into(remote, 0, bytearray(10), stop=stop)
    assert time.monotonic() - started < 25  # the pause alone would take 30 s
    with pytest.raises(ReadStopped):  # set before the first piece
        hub.read_into(remote, 0, bytearray(10), stop=stop)


def ranged(call: Call, body: bytes, **headers: str) -> bytes:
    """Answer as an honest server would, with ``body`` for the bytes and ``headers`` on top."""
    if call.method == "HEAD":
        return reply(etag='"x"', content_length=str(len(BODY)))
    start, end = call.headers["range"].removeprefix("bytes=").split("-")
    return reply(body, 206, **{"content_range": f"bytes {start}-{end}/{len(BODY)}", **headers})


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda call: ranged(call, BODY[:101]), "more than the range"),
        (lambda call: ranged(call, BODY[:99], content_length="99"), "ended after 99 of 100 bytes"),
        (lambda call: ranged(call, gzip.compress(BODY[:100]), content_encoding="gzip"), "compressed"),
        (lambda call: ranged(call, BODY[:100], content_range="bytes 0-99/5"), "another range"),
        (lambda call: ranged(call, BODY[:100], content_range="bytes 0-98/1048576"), "another range"),
        (lambda call: ranged(call, BODY[:100], content_range="items 0-99/1048576"), "another range"),
        (lambda call: ranged(call, BODY[:100], content_range="bytes */1048576"), "another range"),
        (lambda call: ranged(call, BODY[:100], content_range=f"bytes 0-99/{'9' * 5000}"), "another range"),
        (lambda call: ranged(call, BODY[:100], content_range=""), "another range"),
        (lambda call: ranged(call, b"HTTP/9 nonsense", content_length="-5"), "bad Content-Length"),
        (lambda call: b"nonsense\r\n\r\n" if call.method == "GET" else ranged(call, b""), "illegal status line"),
        (lambda call: reply(b"", 302, location="/loop") if call.method == "GET" else ranged(call, b""), "302"),
    ],
)
def test_answers_that_no_honest_server_gives(answer, problem: str) -> None:
    with scripted(answer) as server:
        hub = quick_hub(server.endpoint)
        remote = hub.locate(RepoRef(repo_id="org/name", revision="a" * 40), "x")
        with pytest.raises(HubUnreachable, match=problem):
            hub.read_range(remote, 0, 100)
        assert sum(call.method == "GET" for call in server.calls) == 3


def test_an_unstated_total_is_accepted() -> None:
    with scripted(lambda call: ranged(call, BODY[:100], content_range="bytes 0-99/*")) as server:
        hub = quick_hub(server.endpoint)
        remote = hub.locate(RepoRef(repo_id="org/name", revision="a" * 40), "x")
        assert hub.read_range(remote, 0, 100) == BODY[:100]


def test_a_trickle_is_not_waited_for() -> None:
    def trickle(call: Call):
        if call.method == "HEAD":
            yield ranged(call, b"")
            return
        yield ranged(call, b"", content_length="1200")
        for _ in range(1200):
            time.sleep(0.05)
            yield b"x"

    with scripted(trickle) as server:
        hub = quick_hub(server.endpoint, timeout_seconds=0.3, attempts=1)
        remote = hub.locate(RepoRef(repo_id="org/name", revision="a" * 40), "x")
        started = time.monotonic()
        with pytest.raises(HubUnreachable, match="too slowly"):
            hub.read_range(remote, 0, 1200)
        assert time.monotonic() - started < 30  # all of it would take 60 s


def test_a_file_that_changes_size_is_noticed() -> None:
    heads = iter([b"1048576", b"77"])

    def changing(call: Call) -> bytes:
        if call.method == "HEAD":
            return reply(etag='"x"', content_length=next(heads).decode())
        return reply(b"", 302, location="/elsewhere")

    with scripted(changing) as server:
        hub = quick_hub(server.endpoint)
        remote = hub.locate(RepoRef(repo_id="org/name", revision="a" * 40), "x")
        with pytest.raises(HubUnreachable, match="changed while it was read"):
            hub.read_range(remote, 0, 100)
