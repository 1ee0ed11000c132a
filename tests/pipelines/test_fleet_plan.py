import pytest
from localhub.server import LocalHub
from safetensors.numpy import save

from pipelines.fleet_plan import CHUNK_BYTES, SAMPLE, FleetPlan, plan_as_json, sample_sizes
from pipelines.ledger_selection import Wanted
from scanner.hub import Hub


def wanted(name: str, size: int | None = None, family: str | None = None, listed: str | None = "a" * 40) -> Wanted:
    return Wanted(repo_id=name, size_bytes=size, family=family, listed=listed)


def test_sums() -> None:
    plan = FleetPlan()
    plan.add(wanted("org/a", 100, "org/base"))
    plan.add(wanted("org/b", 300, "org/base"))
    plan.add(wanted("org/c", None, "org/other"))
    plan.add(wanted("org/d", 10**9), unchanged=True)
    plan.add(wanted("org/e", None, None, None))
    assert (plan.repos, plan.unchanged, plan.to_scan, plan.sized, plan.unlisted) == (5, 1, 4, 2, 1)
    # Two unknown sizes at the mean of the two known ones.
    assert plan.candidate_bytes == 400 + 2 * 200
    # The largest member of one family stands for its base; of the other nothing is known but the mean.
    assert plan.base_bytes == 300 + 200
    assert plan.api_requests == 2 * 4 + 1 + 3 * 2
    assert plan.file_requests == 4 * (4 + 2) + 1


def test_the_scarcest_means_decides() -> None:
    plan = FleetPlan()
    for number in range(100):
        plan.add(wanted(f"org/{number}", CHUNK_BYTES))
    assert plan.seconds(bytes_per_second=1e9, api_per_second=1.0) == (plan.api_requests, "API requests")
    assert plan.seconds(bytes_per_second=1e3, api_per_second=1e9)[1] == "bytes"
    assert plan.seconds(bytes_per_second=1e9, api_per_second=None)[1] == "bytes"
    assert plan_as_json(plan, bytes_per_second=1e9, api_per_second=1.0)["bottleneck"] == "API requests"


def test_nothing_costs_next_to_nothing() -> None:
    assert FleetPlan().seconds(bytes_per_second=1.0, api_per_second=None) == (0.0, "bytes")


@pytest.mark.parametrize("count", [5, 200])
def test_sizes_of_a_file_of_ids_are_sampled(hub_server: LocalHub, count: int) -> None:
    import numpy as np

    weights = save({"a": np.zeros(1000, np.float32)})
    card = "---\nbase_model: org/base\n---\n"
    for number in range(count):
        hub_server.add_repo(f"org/m{number}", {"model.safetensors": weights, "README.md": card})
    plan = FleetPlan()
    names = [wanted(f"org/m{number}", listed=None) for number in range(count)] + [wanted("org/gone", listed=None)]
    for one in names:
        plan.add(one)
    hub_server.log.clear()
    sample_sizes(plan, names, Hub(hub_server.endpoint))
    assert plan.sized >= min(count, SAMPLE - 1)
    assert plan.candidate_bytes == 4000 * (count + 1)
    assert list(plan.families) == ["org/base"]
    assert len(hub_server.log) <= 2 * SAMPLE
