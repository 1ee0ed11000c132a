import socket
import threading
import time
from collections.abc import Iterator

import pytest
from localhub.server import LocalHub
from quickhub import quick_hub

from pipelines.budget import BorrowedBudget, Budget, BudgetAddress, BudgetServer
from scanner.quota import Allowance
from scanner.refs import parse_spec


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stated(remaining: int, reset: float, quota: int | None = 100, window: float | None = 300) -> Allowance:
    return Allowance(remaining=remaining, reset_seconds=reset, quota=quota, window_seconds=window)


def test_without_a_stated_quota_nobody_waits() -> None:
    assert Budget().lend("api", 8)[0] == 8


def test_a_window_is_lent_out_once_and_refilled() -> None:
    clock = Clock()
    budget = Budget(clock=clock)
    budget.learn("api", stated(40, 50))
    lent = [budget.lend("api", 8)[0] for _ in range(30)]
    assert lent[:3] == [8, 6, 4]
    assert sum(lent) == 40 - 8
    assert budget.lend("api", 8) == (0, 50)
    assert budget.lend("resolvers", 8)[0] == 8
    clock.now += 50
    assert budget.lend("api", 8) == (8, 300)
    # Some requests of the old window may be counted in the new one.
    assert budget.left() == {"api": 100 - 8 - 8}


def test_late_news_of_the_same_window_does_not_refill_it() -> None:
    budget = Budget(clock=Clock())
    budget.learn("api", stated(60, 50))
    budget.lend("api", 8)
    budget.learn("api", stated(59, 50))
    assert budget.left() == {"api": 60 - 8 - 8}
    budget.learn("api", stated(5, 49))
    assert budget.left() == {"api": 5}


def test_a_share_is_left_to_others() -> None:
    budget = Budget(share=0.8, clock=Clock())
    budget.learn("api", stated(40, 50))
    assert sum(budget.lend("api", 8)[0] for _ in range(40)) == 40 - 8 - 20


def test_no_header_makes_anybody_wait_for_ever() -> None:
    budget = Budget(clock=Clock())
    budget.learn("api", stated(0, 1e9))
    assert budget.lend("api", 1)[1] <= 600


def test_a_window_of_unknown_size_is_forgotten_when_it_ends() -> None:
    clock = Clock()
    budget = Budget(clock=clock)
    budget.learn("api", stated(0, 5, None, None))
    assert budget.lend("api", 3)[0] == 0
    clock.now += 5
    assert budget.lend("api", 3)[0] == 3


@pytest.fixture
def server() -> Iterator[BudgetServer]:
    with BudgetServer(Budget()) as made:
        yield made


def test_strangers_are_hung_up_on(server: BudgetServer) -> None:
    server.budget.learn("api", stated(10, 50))
    for words in (b"guess\n", b"\xff\xfe\n", b"\n", server.address.secret.encode() + b"\nnonsense\n"):
        with socket.create_connection((server.address.host, server.address.port)) as peer:
            peer.sendall(words + b'{"lend": "api", "wanted": 8}\n')
            peer.shutdown(socket.SHUT_WR)
            with peer.makefile("rb") as answer:
                assert answer.read() == b""
    assert server.budget.left() == {"api": 2}


def test_a_worker_outlives_its_driver() -> None:
    with BudgetServer(Budget()) as server:
        borrowed = BorrowedBudget(server.address)
        borrowed.admit("api")
    elsewhere = BorrowedBudget(BudgetAddress(host="127.0.0.1", port=1, secret="x"))
    for budget in (borrowed, elsewhere):
        with budget:
            for _ in range(20):
                budget.learn("api", stated(0, 500))
                budget.admit("api")


def test_the_secret_is_not_shown() -> None:
    assert "hush" not in repr(BudgetAddress(host="h", port=1, secret="hush"))


def test_many_readers_share_a_quota_without_one_refusal(hub_server: LocalHub, server: BudgetServer) -> None:
    hub_server.add_repo("org/name", {"README.md": "x"})
    hub_server.configure(quotas={"api": (30, 1.0)})
    # Each of these stands for a worker process: a connection of its own to the budget.
    budgets = [BorrowedBudget(server.address) for _ in range(4)]
    hubs = [quick_hub(hub_server, governor=budget) for budget in budgets]
    begun = time.monotonic()

    def work(hub: object) -> None:
        for _ in range(20):
            hub.resolve(parse_spec("org/name"))  # type: ignore[attr-defined]

    threads = [threading.Thread(target=work, args=(hub,)) for hub in hubs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for budget in budgets:
        budget.close()
    assert hub_server._state.quotas.refused == 0
    assert sum(hub.requests for hub in hubs) == 80
    assert time.monotonic() - begun > 1.5


def test_without_a_shared_budget_the_same_readers_are_refused(hub_server: LocalHub) -> None:
    hub_server.add_repo("org/name", {"README.md": "x"})
    hub_server.configure(quotas={"api": (30, 1.0)})
    hub = quick_hub(hub_server)
    for _ in range(40):
        hub.resolve(parse_spec("org/name"))
    assert hub_server._state.quotas.refused > 0
