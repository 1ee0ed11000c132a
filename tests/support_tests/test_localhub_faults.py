"""The local server misbehaves exactly as planned, and keeps its promised pace."""

import concurrent.futures
import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import http_backoff
from localhub.faults import FOR_EVER, Drop, IgnoreRange, LoseReply, ShortRange, Stall, Status, Truncate, WrongRange
from localhub.server import LocalHub
from localhub.state import Settings

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def url(hub_server):
    hub_server.add_repo("org/m", {"w.bin": CONTENT, "README.md": "# M"})
    return f"{hub_server.endpoint}/org/m/resolve/main/w.bin"


@pytest.fixture
def client():
    with httpx2.Client(timeout=5) as client:
        yield client


def part(client, url):
    return client.get(url, headers={"Range": "bytes=100-199"})


def test_status_strikes_the_planned_requests_only(hub_server, url, client):
    hub_server.faults.add(Status(code=503), method="GET", path="w.bin", after=1, times=2)
    assert client.head(url).status_code == 200
    assert [part(client, url).status_code for _ in range(4)] == [206, 503, 503, 206]
    assert hub_server.faults.pending == 0


def test_rate_limits_carry_the_hubs_headers(hub_server, url, client):
    hub_server.faults.add(Status.rate_limited(55), path="/api/models/org/m")
    with pytest.raises(HfHubHTTPError, match="55 seconds"):
        HfApi().model_info("org/m")
    hub_server.faults.add(Status.retry_after(503, 0), path="w.bin")
    reply = http_backoff("GET", url, headers={"Range": "bytes=100-199"}, base_wait_time=0.01)
    assert reply.content == CONTENT[100:200]
    assert [record.status for record in hub_server.log.matching("w.bin")] == [503, 206]


def test_range_is_ignored_mislabelled_or_short(hub_server, url, client):
    for fault in (IgnoreRange(), WrongRange(shift_bytes=3), ShortRange(missing_bytes=40)):
        hub_server.faults.add(fault, path="w.bin")
    whole, shifted, short, sound = (part(client, url) for _ in range(4))
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (shifted.headers["Content-Range"], shifted.content) == (f"bytes 103-202/{len(CONTENT)}", CONTENT[100:200])
    assert (short.headers["Content-Range"], short.content) == (f"bytes 100-159/{len(CONTENT)}", CONTENT[100:160])
    assert sound.content == CONTENT[100:200]


def test_truncation_drop_and_stall(hub_server, url, client):
    hub_server.faults.add(Truncate(after_bytes=30), path="w.bin")
    with pytest.raises(httpx2.RemoteProtocolError, match="30 bytes, expected 100"):
        part(client, url)
    assert hub_server.log.matching("w.bin")[-1].sent == 30
    hub_server.faults.add(Drop(), path="w.bin")
    with pytest.raises(httpx2.RemoteProtocolError):
        part(client, url)
    assert hub_server.log.matching("w.bin")[-1].status == 0
    for fault in (Stall(seconds=30), Stall(seconds=30, after_bytes=10)):
        hub_server.faults.add(fault, path="w.bin")
        with pytest.raises(httpx2.ReadTimeout):
            client.get(url, headers={"Range": "bytes=100-199"}, timeout=0.1)
    hub_server.faults.add(Stall(seconds=0.05, after_bytes=10), path="w.bin")
    assert part(client, url).content == CONTENT[100:200]


def test_client_repeats_a_truncated_download(hub_server, url):
    hub_server.faults.add(Truncate(after_bytes=1000), method="GET", path="w.bin")
    assert Path(hf_hub_download("org/m", "w.bin")).read_bytes() == CONTENT
    assert [record.sent for record in hub_server.log.matching("w.bin", method="GET")] == [1000, len(CONTENT)]


def test_lost_reply_leaves_the_pull_request_behind(hub_server, url):
    hub_server.faults.add(LoseReply(), path="/commit/main")
    api = HfApi(token=hub_server.token("bot"))
    change = [CommitOperationAdd("a.txt", b"x")]
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create_commit("org/m", change, commit_message="Once", create_pr=True)
    assert [one.title for one in hub_server.discussions("org/m")] == ["Once"]
    hub_server.faults.add(Drop(), path="/commit/main")
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create_commit("org/m", change, commit_message="Twice", create_pr=True)
    assert len(hub_server.discussions("org/m")) == 1


def test_reset_forgets_everything_and_wakes_the_stalled(hub_server, url, client):
    hub_server.faults.add(Stall(seconds=60), path="w.bin", times=FOR_EVER)
    hub_server.configure(latency_seconds=0.5)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(part, client, url)
        while not hub_server.log.count("w.bin"):
            time.sleep(0.005)
        hub_server.reset()
        waiting.result()
    assert time.monotonic() - started < 5
    assert part(client, url).status_code == 401
    assert len(hub_server.log) == 1


def test_a_token_at_the_cdn_is_a_crash():
    with LocalHub(settings=Settings(cdn=True)) as hub, httpx2.Client() as client:
        hub.add_repo("org/m", {"w.bin": CONTENT})
        head = client.head(f"{hub.endpoint}/org/m/resolve/main/w.bin")
        reply = client.get(head.headers["Location"], headers={"Authorization": f"Bearer {hub.token('a')}"})
        assert reply.status_code == 500
        assert "sent Authorization" in hub.crashes[0]


def test_latency_and_bandwidth_are_shared_by_all_connections(hub_server, tmp_path):
    size, rate, latency = 4_000_000, 20e6, 0.05
    file = tmp_path / "big.bin"
    file.write_bytes(bytes(size))
    hub_server.add_repo("org/big", {"disk.bin": file, "memory.bin": bytes(size)})
    hub_server.configure(bandwidth=rate, latency_seconds=latency)

    def fetch(name):
        return len(httpx2.get(f"{hub_server.endpoint}/org/big/resolve/main/{name}").content)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = time.monotonic()
        assert list(pool.map(fetch, ["disk.bin", "memory.bin"])) == [size, size]
        seconds = time.monotonic() - started
    expected = 2 * size / rate + latency
    # The upper bound is loose because other work may hold the processor; the lower one is the promise.
    assert 0.95 * expected < seconds < expected + 2


def test_many_connections_at_once(hub_server, url):
    with httpx2.Client() as client, concurrent.futures.ThreadPoolExecutor(16) as pool:
        ranges = [f"bytes={number * 10}-{number * 10 + 9}" for number in range(200)]
        parts = list(pool.map(lambda span: client.get(url, headers={"Range": span}).content, ranges))
    assert b"".join(parts) == CONTENT[:2000]
    assert hub_server.log.bytes_sent("w.bin") == 2000
