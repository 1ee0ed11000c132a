import pytest
from localhub.server import LocalHub

from pipelines.engines.hf_jobs import plan_job, submit
from scanner.errors import BadReference, CouldNotConclude


def test_the_plan_is_the_command_that_runs_there() -> None:
    plan = plan_job(
        ["--author", "org", "--workers", "4"], bucket="me/ledgers", name="org.sqlite", dependencies=["hubaudit"]
    )
    assert plan.shown == (
        "hf jobs uv run --flavor cpu-upgrade --timeout 6h --secrets HF_TOKEN -v hf://buckets/me/ledgers:/ledgers "
        "--with hubaudit hubaudit fleet --author org --workers 4 --engine local --ledger /tmp/fleet.sqlite "
        "--keep-copy /ledgers/org.sqlite --log json"
    )


def test_arguments_are_quoted() -> None:
    shown = plan_job(["--search", "a b; rm -rf ~"], bucket="me/ledgers", name="x").shown
    assert "--search 'a b; rm -rf ~'" in shown


@pytest.mark.parametrize(
    ("bucket", "name"),
    [
        (None, "x"),
        ("ledgers", "x"),
        ("me/led gers", "x"),
        ("me/x:/etc", "x"),
        ("me/ledgers", "../x"),
        ("me/ledgers", ""),
    ],
)
def test_a_job_needs_a_place_for_its_ledger(bucket: str | None, name: str) -> None:
    with pytest.raises(BadReference):
        plan_job([], bucket=bucket, name=name)


def test_a_job_is_started_with_its_bucket_and_the_token_as_a_secret(hub_server: LocalHub) -> None:
    token = hub_server.token("me")
    plan = plan_job(["--author", "org"], bucket="me/ledgers", name="org.sqlite", dependencies=["hubaudit==9"])
    url = submit(plan, endpoint=hub_server.endpoint, token=token)
    (job,) = hub_server._state.jobs
    assert url == f"{hub_server.endpoint}/jobs/me/{job['id']}"
    assert job["command"][:5] == ["uv", "run", "--with", "hubaudit==9", "hubaudit"]
    assert job["command"][5:] == list(plan.arguments)
    assert job["secrets"] == {"HF_TOKEN": token}
    assert job["environment"] == {}
    assert token not in " ".join(job["command"])
    assert job["volumes"] == [{"type": "bucket", "source": "me/ledgers", "mountPath": "/ledgers"}]
    assert (job["flavor"], job["timeoutSeconds"]) == ("cpu-upgrade", 6 * 3600)


def test_a_refusal_says_what_to_do(hub_server: LocalHub) -> None:
    plan = plan_job([], bucket="me/ledgers", name="x", namespace="others")
    with pytest.raises(CouldNotConclude, match=r"rights to run jobs.*HF_TOKEN"):
        submit(plan, endpoint=hub_server.endpoint, token=hub_server.token("me"))
    assert hub_server._state.jobs == []
