import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from scanner.errors import HubRateLimited, HubUnreachable
from scanner.patience import Patience, ReadPolicy, ReadStopped, asked_wait

QUICK = ReadPolicy(first_wait_seconds=0.001, longest_wait_seconds=0.004, attempts=4, max_wait_seconds=1.0)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {"RateLimit": '"api";r=0;t=55'}, 55.0),
        (429, {"RateLimit": '"api";r=3;t=55'}, None),  # something else refused, not the quota
        (200, {"RateLimit": '"api";r=0;t=55'}, None),
        (503, {"Retry-After": "7"}, 7.0),
        (429, {"RateLimit": '"api";r=0;t=5', "Retry-After": "7"}, 5.0),
        (429, {"RateLimit": "nonsense", "Retry-After": " 7 "}, 7.0),
        (503, {"Retry-After": "-7"}, None),
        (503, {"Retry-After": "1e9"}, None),
        (503, {"Retry-After": "9" * 5000}, None),
        (503, {"Retry-After": "soon"}, None),
        (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        (503, {}, None),
    ],
)
def test_the_wait_a_server_asks_for(status: int, headers: dict[str, str], expected: float | None) -> None:
    assert asked_wait(status, headers) == expected


def test_a_date_is_understood() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (asked_wait(503, {"Retry-After": later}) or 0) <= 30


def test_waits_grow_and_attempts_are_counted() -> None:
    patience = Patience(QUICK, "the file")
    for _ in range(3):
        patience.wait("it broke")
    with pytest.raises(HubUnreachable, match=r"the file could not be read: it broke \(4 attempts\); check the network"):
        patience.wait("it broke")


def test_the_sum_of_the_waits_is_bounded() -> None:
    patience = Patience(QUICK, "the file")
    started = time.monotonic()
    with pytest.raises(HubUnreachable):
        patience.wait("busy", status=503, headers={"Retry-After": "30"})
    assert time.monotonic() - started < 20


def test_a_quota_that_ends_too_late_is_named() -> None:
    with pytest.raises(HubRateLimited, match=r"asks to wait 55 s \(rate limit\); run again later, or set HF_TOKEN"):
        Patience(QUICK, "the file").wait("429", status=429, headers={"RateLimit": '"api";r=0;t=55'})


def test_an_asked_wait_is_kept() -> None:
    patience = Patience(ReadPolicy(first_wait_seconds=0.001, attempts=3), "the file")
    started = time.monotonic()
    patience.wait("429", status=429, headers={"Retry-After": "1"})
    assert time.monotonic() - started >= 1.0


def test_a_stop_ends_the_wait_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    patience = Patience(ReadPolicy(first_wait_seconds=60.0), "the file", stop=stop)
    started = time.monotonic()
    with pytest.raises(ReadStopped):
        patience.wait("it broke")
    assert time.monotonic() - started < 50
