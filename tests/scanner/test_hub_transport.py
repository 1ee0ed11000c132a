import threading
import time

import httpx2
import pytest
from huggingface_hub import HfApi, get_session
from localhub.faults import FOR_EVER, Drop, Stall, Status, Truncate
from localhub.server import LocalHub
from quickhub import quick_hub
from scripted import Call, reply, scripted

from scanner.errors import HubRateLimited, HubUnreachable
from scanner.hub_transport import HubClient, session

FAULTS = [
    Status(code=408),
    Status(code=429),
    Status.rate_limited(0),
    Status.retry_after(503, 0),
    Status(code=500),
    Status(code=502),
    Status(code=504),
    Drop(),
    Stall(seconds=30),
    Stall(seconds=30, after_bytes=10),
    Truncate(after_bytes=10),
]


@pytest.fixture
def repo(hub_server: LocalHub) -> str:
    hub_server.add_repo("org/name", {"config.json": "{}"})
    return "org/name"


def test_the_client_library_uses_our_client(hub_server: LocalHub) -> None:
    assert session() is get_session()
    assert isinstance(get_session(), HubClient)


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_calls_that_the_client_never_retries_are_retried(hub_server: LocalHub, repo: str, fault) -> None:
    hub = quick_hub(hub_server, timeout_seconds=1.0 if isinstance(fault, Stall) else 10.0)
    api = HfApi(endpoint=hub_server.endpoint)
    hub_server.faults.add(fault, path="/api/models/", times=2)
    with hub.reading():
        assert api.model_info(repo).id == repo
    assert (hub_server.faults.pending, len(hub_server.log), hub.requests) == (0, 3, 3)


def test_asking_about_paths_by_post_is_retried(hub_server: LocalHub, repo: str) -> None:
    hub = quick_hub(hub_server)
    hub_server.faults.add(Status(code=503), method="POST", path="/paths-info/")
    with hub.reading():
        found = HfApi(endpoint=hub_server.endpoint).get_paths_info(repo, ["config.json", "none"])
    assert [item.path for item in found] == ["config.json"]
    assert hub_server.log.count("/paths-info/") == 2


def test_writing_is_never_repeated(hub_server: LocalHub, repo: str) -> None:
    hub = quick_hub(hub_server)
    api = HfApi(endpoint=hub_server.endpoint, token=hub_server.token("org"))
    hub_server.faults.add(Status(code=503), method="POST", path="/discussions")
    with hub.reading(), pytest.raises(httpx2.HTTPError):
        api.create_discussion(repo, "title", description="text")
    assert hub_server.log.count("/discussions", method="POST") == 1


def test_outside_a_reading_block_the_client_is_as_it_was(hub_server: LocalHub, repo: str) -> None:
    hub = quick_hub(hub_server)
    with hub.reading():
        pass
    hub_server.faults.add(Status(code=503), path="/api/models/")
    with pytest.raises(httpx2.HTTPError):
        HfApi(endpoint=hub_server.endpoint).model_info(repo)
    assert (len(hub_server.log), hub.requests) == (1, 0)


def test_giving_up_on_the_server_is_one_error_after_three_attempts(hub_server: LocalHub, repo: str) -> None:
    hub = quick_hub(hub_server)
    hub_server.faults.add(Status(code=503), times=FOR_EVER)
    with hub.reading(), pytest.raises(HubUnreachable, match=r"answered 503 \(3 attempts\)"):
        list(HfApi(endpoint=hub_server.endpoint).list_repo_tree(repo))  # the client alone would take 23 s
    assert len(hub_server.log) == 3


def test_giving_up_on_the_quota_is_another(hub_server: LocalHub, repo: str) -> None:
    hub = quick_hub(hub_server)
    hub_server.faults.add(Status.rate_limited(55), times=FOR_EVER)
    started = time.monotonic()
    with hub.reading(), pytest.raises(HubRateLimited, match="asks to wait 55 s"):
        HfApi(endpoint=hub_server.endpoint).model_info(repo)
    assert time.monotonic() - started < 30
    assert len(hub_server.log) == 1


def test_a_call_that_passes_no_timeout_has_one(hub_server: LocalHub, repo: str) -> None:
    hub = quick_hub(hub_server, timeout_seconds=0.2, attempts=1)
    hub_server.faults.add(Stall(seconds=30))
    started = time.monotonic()
    with hub.reading(), pytest.raises(HubUnreachable, match="no answer within the time limit"):
        HfApi(endpoint=hub_server.endpoint).model_info(repo, timeout=None)
    assert time.monotonic() - started < 25


def test_a_server_that_trickles_does_not_hold_us() -> None:
    def trickle(_: Call):
        yield reply(b"", content_length="1000000")
        for _ in range(1200):
            time.sleep(0.05)
            yield b" "

    with scripted(trickle) as server:
        hub = quick_hub(server.endpoint, timeout_seconds=0.3, attempts=1)
        started = time.monotonic()
        with hub.reading(), pytest.raises(HubUnreachable, match="too slowly"):
            HfApi(endpoint=server.endpoint).model_info("org/name")
        assert time.monotonic() - started < 30  # all of it would take 60 s


def test_an_endless_answer_is_cut_off(monkeypatch) -> None:
    monkeypatch.setattr("scanner.hub_transport.MAX_ANSWER_BYTES", 100_000)

    def endless(_: Call):
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b" " * 10_000

    with scripted(endless) as server:
        hub = quick_hub(server.endpoint, attempts=1)
        with hub.reading(), pytest.raises(HubUnreachable, match="larger than 100,000 bytes"):
            HfApi(endpoint=server.endpoint).model_info("org/name")
        assert hub.bytes_received < 400_000


def test_a_closed_port_is_unreachable() -> None:
    with scripted(lambda _: reply()) as server:
        endpoint = server.endpoint
    hub = quick_hub(endpoint)
    with hub.reading(), pytest.raises(HubUnreachable, match=r"\(3 attempts\); check the network connection"):
        HfApi(endpoint=endpoint).model_info("org/name")


def test_a_next_page_on_another_origin_gets_no_token() -> None:
    """The client library sends its headers to whatever address ``Link`` names; a redirect it would have stripped."""
    with scripted(lambda _: reply(b"[]")) as stranger:
        link = f'<{stranger.endpoint}/api/models?cursor=2>; rel="next"'
        with scripted(lambda _: reply(b"[]", link=link)) as server:
            hub = quick_hub(server.endpoint, token="hf_secret")
            assert list(hub.list_models(author="org")) == []
    assert server.calls[0].headers["authorization"] == "Bearer hf_secret"
    assert len(stranger.calls) == 1
    assert "authorization" not in stranger.calls[0].headers


def test_readers_in_other_threads_keep_their_own_counters(hub_server: LocalHub, repo: str) -> None:
    hubs = [quick_hub(hub_server) for _ in range(4)]

    def work(number: int) -> None:
        for _ in range(number + 1):
            with hubs[number].reading():
                HfApi(endpoint=hub_server.endpoint).model_info(repo)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [hub.requests for hub in hubs] == [1, 2, 3, 4]
