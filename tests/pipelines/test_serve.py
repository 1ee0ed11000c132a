"""``hubaudit serve`` as a real process: events over HTTP, audits of real checkpoints, answers on the local Hub."""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hooks import commented, pushed
from huggingface_hub import HfApi
from localhub.faults import FOR_EVER, Stall
from localhub.server import LocalHub
from picozoo import pico_folder, publish_pico

SECRET = "s3cret-ünd-more"


class Served:
    """A running server, spoken to as the Hub would."""

    def __init__(self, process: subprocess.Popen[str], endpoint: str) -> None:
        self.process = process
        self.address = urlsplit(endpoint)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def send(self, event: Any, secret: str | None = SECRET) -> tuple[int, Any]:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = {"X_Webhook_Secret": secret.encode().decode("latin-1")} if secret is not None else {}
        status, text = self.ask("POST", "/webhook", body, **headers)
        return status, json.loads(text)

    def metrics(self) -> dict[str, float]:
        status, text = self.ask("GET", "/metrics")
        assert status == 200
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def until(self, name: str, value: float, seconds: float = 500) -> None:
        deadline = time.monotonic() + seconds
        while self.metrics()[name] < value:
            assert time.monotonic() < deadline, self.metrics()
            assert self.process.poll() is None
            time.sleep(0.1)


Start = Callable[..., Served]


@pytest.fixture
def start(hub_server: LocalHub, tmp_path: Path) -> Iterator[Start]:
    """Start the server, as often as a test wants."""
    publish_pico(hub_server)
    running: list[subprocess.Popen[str]] = []

    def run(*options: str, token: bool = True, **environment: str) -> Served:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_TOKEN")}
        variables = kept | {
            "HF_ENDPOINT": hub_server.endpoint,
            "HUBAUDIT_STATE": str(tmp_path / "state"),
            "HUBAUDIT_WEBHOOK_SECRET": SECRET,
            **({"HF_TOKEN": hub_server.token("audit-bot")} if token else {}),
            **environment,
        }
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("hubaudit"), "serve", "--port", "0", *options],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), (tmp_path / "log").read_text()
        return Served(process, line.split()[-1])

    yield run
    for process in running:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()


def test_who_does_not_know_the_secret_is_not_heard(start: Start) -> None:
    server = start()
    for secret in (None, "", "wrong", SECRET[:-1], SECRET + "x", SECRET.upper()):
        status, answer = server.send(pushed("pico/honest"), secret)
        assert status == 401
        assert answer == {"queued": False, "why": "the secret is missing or wrong"}
    assert server.ask("POST", f"/webhook?secret={SECRET.encode().hex()}", b"{}")[0] == 401
    assert server.metrics()['hubaudit_events_total{result="refused"}'] == 7
    assert server.metrics()['hubaudit_jobs{state="due"}'] == 0


def test_what_is_no_event_is_refused(start: Start) -> None:
    server = start()
    assert server.send(b"{}")[0] == 400
    assert server.send(pushed("../etc/passwd"))[0] == 400
    # Refused on its word: none of the two megabytes is sent.
    with socket.create_connection((server.address.hostname, server.address.port), timeout=10) as connection:
        connection.sendall(
            f"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {SECRET}\r\nContent-Length: 2000000\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert server.send(pushed("pico/honest", ref="refs/pr/1")) == (
        200,
        {"queued": False, "why": "no new commit on main"},
    )
    assert server.ask("GET", "/webhook")[0] == 405
    assert server.ask("GET", "/nothing")[0] == 404
    assert server.ask("GET", "/health")[0] == 200


def test_a_new_commit_is_audited_and_published_once(start: Start, hub_server: LocalHub, tmp_path: Path) -> None:
    server = start("--publish", "pr")
    assert server.send(pushed("pico/honest"))[0] == 202
    assert server.send(pushed("pico/honest")) == (200, {"queued": False, "why": "this event has been taken before"})
    assert server.send(pushed("pico/poisoned"))[0] == 202
    server.until('hubaudit_attempts_total{ending="done"}', 2)
    (thread,) = hub_server.discussions("pico/honest")
    assert thread.author == "audit-bot"
    assert hub_server.discussions("pico/poisoned") == ()
    reports = tmp_path / "state" / "reports"
    assert sorted(path.name for path in reports.iterdir()) == ["pico--honest.json", "pico--poisoned.json"]
    assert json.loads((reports / "pico--poisoned.json").read_text())["verdict"]["outcome"] == "fail"
    log = (tmp_path / "log").read_text()
    assert SECRET not in log
    assert hub_server.token("audit-bot") not in log


def test_a_comment_is_answered_in_its_thread(start: Start, hub_server: LocalHub) -> None:
    api = HfApi(endpoint=hub_server.endpoint, token=hub_server.token("somebody"))
    for name in ("pico/honest", "pico/poisoned"):
        api.create_discussion(name, title="Is it fine?", description="@audit-bot audit")
    server = start()
    assert server.send(commented("pico/honest", "@audit-bot audit", pull_request=False, comment_id="a1"))[0] == 202
    assert server.send(commented("pico/poisoned", "@audit-bot audit", pull_request=False, comment_id="b1"))[0] == 202
    server.until('hubaudit_attempts_total{ending="done"}', 2)
    (thread,) = hub_server.discussions("pico/honest")
    _question, answer = thread.comments
    assert "## Weight audit" in answer
    assert "<!-- hubaudit:answer a1 -->" in answer
    # What is severe is not told where everybody can read it.
    (thread,) = hub_server.discussions("pico/poisoned")
    assert "goes to the owner of the repository first" in thread.comments[1]
    assert "embedding" not in thread.comments[1]
    # Our own answer comes back as an event.
    assert server.send(commented("pico/honest", f"@audit-bot audit\n{answer}"))[1]["queued"] is False


def test_the_weights_of_a_pull_request_are_audited(start: Start, hub_server: LocalHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub_server.endpoint, token=hub_server.token("somebody"))
    number = api.create_pull_request("pico/honest", title="Better weights").num
    weights = pico_folder() / "pico" / "poisoned" / "model.safetensors"
    hub_server.commit("pico/honest", {"model.safetensors": weights}, ref=f"refs/pr/{number}", author="somebody")
    server = start()
    assert server.send(commented("pico/honest", "@audit-bot audit", num=number))[0] == 202
    server.until('hubaudit_attempts_total{ending="done"}', 1)
    report = json.loads((tmp_path / "state" / "reports" / "pico--honest.json").read_text())
    assert report["subject"]["revision"] == hub_server.sha("pico/honest", f"refs/pr/{number}")
    assert report["verdict"]["outcome"] == "fail"


def test_a_killed_server_forgets_nothing(start: Start, hub_server: LocalHub) -> None:
    hub_server.faults.add(Stall(seconds=30), path="/api/models/pico/honest", times=1)
    first = start("--publish", "pr")
    for name in ("pico/honest", "pico/base"):
        assert first.send(pushed(name))[0] == 202
    first.until('hubaudit_jobs{state="running"}', 1)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    hub_server.faults.clear()
    second = start("--publish", "pr")
    second.until('hubaudit_attempts_total{ending="done"}', 2)
    assert len(hub_server.discussions("pico/honest")) == 1


def test_ctrl_c_is_the_usual_end(start: Start) -> None:
    server = start()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 0


def test_a_stopped_server_ends_soon_and_gives_its_job_back(start: Start, hub_server: LocalHub) -> None:
    hub_server.faults.add(Stall(seconds=60), path="/api/models/pico/honest", times=FOR_EVER)
    server = start()
    server.send(pushed("pico/honest"))
    server.until('hubaudit_jobs{state="running"}', 1)
    time.sleep(1.5)
    begun = time.monotonic()
    server.process.terminate()
    server.process.wait(timeout=60)
    assert time.monotonic() - begun < 50  # the scan alone would take a minute
    hub_server.faults.clear()
    start().until('hubaudit_attempts_total{ending="done"}', 1)


def test_events_are_answered_fast_while_audits_run(start: Start, hub_server: LocalHub) -> None:
    hub_server.faults.add(Stall(seconds=20), path="/api/models/", times=FOR_EVER)
    server = start("--queue-size", "100")
    took, statuses = [], []
    for number in range(130):
        begun = time.perf_counter()
        statuses.append(server.send(pushed(f"org/model-{number}"))[0])
        took.append(time.perf_counter() - begun)
    assert set(statuses) == {202, 503}
    assert 100 <= statuses.count(202) <= 101
    assert statistics.median(took) < 5, "each waited for an audit, which takes 20 s"
    assert server.metrics()['hubaudit_jobs{state="due"}'] == 100
    assert server.metrics()["hubaudit_oldest_due_seconds"] > 0


def test_a_slow_or_broken_sender_holds_up_nobody(start: Start) -> None:
    server = start()
    slow = [socket.create_connection((server.address.hostname, server.address.port)) for _ in range(20)]
    head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {SECRET}\r\nContent-Length: 1000\r\n\r\n{{"
    for connection in slow:
        connection.sendall(head.encode())
    assert server.send(pushed("pico/honest", ref="refs/pr/9"))[0] == 200
    for connection in slow:
        connection.close()
    assert server.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ([], {"HUBAUDIT_WEBHOOK_SECRET": ""}, "a webhook needs a secret"),
        (["--secret-file", "/dev/null"], {}, "a webhook needs a secret"),
        ([], {"HF_TOKEN": "hf_wrong"}, "The Hub refused the token"),
        (["--host", "192.0.2.1"], {}, "Nothing can be served at 192.0.2.1 port 0"),  # an address of nobody (RFC 5737)
    ],
)
def test_what_is_wrong_at_the_start_is_said(
    hub_server: LocalHub, tmp_path: Path, options: list[str], environment: dict[str, str], said: str
) -> None:
    variables = dict(os.environ) | {
        "HF_ENDPOINT": hub_server.endpoint,
        "HUBAUDIT_STATE": str(tmp_path),
        "HUBAUDIT_WEBHOOK_SECRET": SECRET,
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("hubaudit"), "serve", "--port", "0", *options],
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in {2, 3}
    assert said in done.stderr
    assert "Traceback" not in done.stderr
