"""Whatever fails in the middle: nothing is lost, no second thread is opened, and the same command again succeeds."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from localhub.faults import Drop, Fault, LoseReply, Status
from localhub.server import LocalHub
from publishing import CARD, REPO, Bench, later, report, with_finding

from pipelines.publishing.errors import PublishRefused, ReplyLost, RepositoryChanged
from reports.card_section import remove
from scanner.errors import CouldNotConclude, HubUnreachable


@pytest.fixture
def bench(hub_server: LocalHub, tmp_path: Path) -> Bench:
    hub_server.add_repo(REPO, {"README.md": CARD})
    return Bench(server=hub_server, folder=tmp_path)


def as_user(bench: Bench, user: str) -> HfApi:
    return HfApi(endpoint=bench.server.endpoint, token=bench.server.token(user))


def make_conflict(bench: Bench) -> None:
    """Edit the card on main, so that pull request 1 can no longer be merged, and let the Hub notice."""
    bench.server.commit(REPO, {"README.md": CARD.replace(b"# Reviews", b"# Reviews, second edition")})
    with pytest.raises(HfHubHTTPError):
        as_user(bench, "demo").merge_pull_request(REPO, 1)
    assert bench.server.discussions(REPO)[0].conflicts == ["README.md"]


SCENARIOS: dict[str, tuple[list[tuple], tuple]] = {
    "open": ([], (report(), "pr")),
    "update": ([(report(), "pr")], (later(report()), "pr")),
    "close": ([(with_finding(report()), "pr")], (report(), "pr")),
    "discuss": ([], (report(), "discussion")),
    "discuss again": ([(report(), "discussion")], (later(report()), "discussion")),
    "end discussion": ([(with_finding(report()), "discussion")], (report(), "discussion")),
    "commit": ([], (report(), "section", "demo")),
}
FAULTS: dict[str, Callable[[], Fault]] = {
    "refused for now": lambda: Status.rate_limited(30),
    "unavailable": lambda: Status(code=503),
    "gateway": lambda: Status(code=504),
    "dropped": Drop,
    "lost": LoseReply,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_write_that_fails_is_repaired_by_the_next_run(bench: Bench, name: str, fault: str) -> None:
    """Spoil each write of a scenario in turn, then run the same command again without faults."""
    before, (wanted, form, *user) = SCENARIOS[name]
    who = {"user": user[0]} if user else {}
    spoiled = 0
    said: list[str] = []
    while True:
        bench.server.add_repo(REPO, {"README.md": CARD})
        for earlier in before:
            bench.publish(*earlier, **who)
        bench.server.faults.clear()
        # The client itself repeats `preupload`, with pauses of seconds; it changes nothing.
        for path in ("/commit/", "/comment", "/status", "/discussions", "/validate-yaml"):
            bench.server.faults.add(FAULTS[fault](), method="POST", path=path, after=spoiled)
        pending = bench.server.faults.pending
        try:
            bench.publish(wanted, form, **who)
        except CouldNotConclude as error:
            said.append(str(error))
        struck = pending - bench.server.faults.pending
        bench.server.faults.clear()
        bench.publish(wanted, form, **who)

        assert not bench.plan(wanted, form, **who).changes
        threads = bench.server.discussions(REPO)
        assert len(threads) == (0 if form == "section" else 1)
        for thread in threads:
            assert thread.status == ("closed" if "close" in name or "end" in name else "open")
            assert len(thread.comments) == (2 if thread.status == "closed" else 1)
            if form == "pr":
                assert remove(bench.server.read(REPO, "README.md", "refs/pr/1")) == CARD
        assert remove(bench.server.read(REPO, "README.md")) == CARD
        if not struck:
            break
        spoiled += 1
    assert spoiled
    assert all("again" in sentence for sentence in said)


def test_a_lost_reply_is_found_again_at_once(bench: Bench) -> None:
    bench.server.faults.add(LoseReply(), path="/commit/")
    assert bench.publish(report()) == f"opened {bench.server.endpoint}/{REPO}/discussions/1"
    bench.server.faults.add(LoseReply(), path="/commit/")
    assert bench.publish(later(report())).startswith("updated ")
    (thread,) = bench.server.discussions(REPO)
    assert "INCONCLUSIVE" in thread.comments[0]
    assert bench.server.log.count("/commit/main", method="POST") == 1


def test_a_commit_that_never_arrived_says_so(bench: Bench) -> None:
    bench.server.faults.add(Drop(), path="/commit/")
    with pytest.raises(ReplyLost, match="No thread was opened so far; running the same command again is safe"):
        bench.publish(report())
    assert bench.server.discussions(REPO) == ()


def test_a_rate_limit_in_the_middle_says_what_is_done(bench: Bench) -> None:
    bench.publish(report())
    bench.server.faults.add(Status.rate_limited(55), path="/comment/")
    with pytest.raises(
        CouldNotConclude, match=r"again in 55 s.* card section in .*discussions/1 is up to date already"
    ):
        bench.publish(later(report()))
    assert bench.publish(later(report())).startswith("updated ")
    assert bench.server.log.count("/commit/refs%2Fpr%2F1", method="POST") == 1


def test_reads_are_repeated(bench: Bench) -> None:
    for path in ("/whoami", "/discussions?", f"/api/models/{REPO}", "/README.md"):
        bench.server.faults.add(Status(code=503), method="GET", path=path)
    assert bench.publish(report()).startswith("opened ")


def test_a_hub_that_stays_away_is_told(bench: Bench) -> None:
    from localhub.faults import FOR_EVER

    bench.server.faults.add(Status(code=503), path="/discussions", times=FOR_EVER)
    with pytest.raises(HubUnreachable):
        bench.plan(report())


# --- somebody was faster ----------------------------------------------------------------------------------------------


def test_a_branch_that_moved_is_not_overwritten(bench: Bench) -> None:
    publisher = bench.publisher("demo")
    plan = publisher.plan(report(), form="section")
    bench.server.commit(REPO, {"README.md": CARD + b" and now one"})
    with pytest.raises(RepositoryChanged, match="412"):
        publisher.publish(plan)
    assert bench.server.read(REPO, "README.md") == CARD + b" and now one"


def test_a_pull_request_that_moved_is_not_overwritten(bench: Bench) -> None:
    bench.publish(report())
    publisher = bench.publisher()
    plan = publisher.plan(later(report()), form="pr")
    bench.server.commit(REPO, {"README.md": b"rewritten"}, ref="refs/pr/1", author="demo")
    with pytest.raises(RepositoryChanged):
        publisher.publish(plan)
    assert bench.server.read(REPO, "README.md", "refs/pr/1") == b"rewritten"


@pytest.mark.parametrize("ending", ["closed", "merged"])
@pytest.mark.parametrize("found", [True, False])
def test_a_pull_request_that_ended_meanwhile_is_left_alone(bench: Bench, ending: str, found: bool) -> None:
    bench.publish(with_finding(report()) if not found else report())
    publisher = bench.publisher()
    plan = publisher.plan(later(report()) if found else report(), form="pr")
    if ending == "closed":
        as_user(bench, "demo").change_discussion_status(REPO, 1, "closed")
    else:
        as_user(bench, "demo").merge_pull_request(REPO, 1)
    (before,) = bench.server.discussions(REPO)
    events = len(before.events)
    with pytest.raises(RepositoryChanged, match="closed or merged meanwhile"):
        publisher.publish(plan)
    assert len(before.events) == events


def test_two_at_once_open_one_pull_request(bench: Bench) -> None:
    publishers = [bench.publisher() for _ in range(4)]
    plans = [publisher.plan(report(), form="pr") for publisher in publishers]
    answers: list[str] = []

    def publish(number: int) -> None:
        try:
            answers.append(publishers[number].publish(plans[number]))
        except RepositoryChanged as error:
            answers.append(str(error))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.server.discussions(REPO)) == 1
    assert sorted(answer.split()[0] for answer in answers) == ["A", "A", "A", "opened"]


# --- conflicting edits ------------------------------------------------------------------------------------------------


def test_a_pull_request_that_cannot_be_merged_is_replaced(bench: Bench) -> None:
    bench.publish(report())
    make_conflict(bench)
    plan = bench.plan(later(report()))
    assert plan.step == "replace"
    assert bench.publish(later(report())) == f"opened {bench.server.endpoint}/{REPO}/discussions/2"
    first, second = bench.server.discussions(REPO)
    assert first.status == "closed"
    assert "A fresh pull request" in first.comments[-1]
    edited = CARD.replace(b"# Reviews", b"# Reviews, second edition")
    assert remove(bench.server.read(REPO, "README.md", "refs/pr/2")) == edited
    as_user(bench, "demo").merge_pull_request(REPO, second.num)
    assert remove(bench.server.read(REPO, "README.md")) == edited


def test_a_replacement_that_stops_half_way_is_finished_by_the_next_run(bench: Bench) -> None:
    bench.publish(report())
    make_conflict(bench)
    bench.server.faults.add(Status.rate_limited(30), path="/commit/")
    with pytest.raises(PublishRefused):
        bench.publish(later(report()))
    assert bench.publish(later(report())) == f"opened {bench.server.endpoint}/{REPO}/discussions/2"


def test_a_conflict_that_others_worked_on_is_theirs_to_resolve(bench: Bench) -> None:
    bench.publish(report())
    ours = bench.server.read(REPO, "README.md", "refs/pr/1")
    bench.server.commit(REPO, {"README.md": ours + b"\nmine\n"}, ref="refs/pr/1", author="demo")
    api = as_user(bench, "demo")
    api.create_commit(
        REPO,
        operations=[_add(ours + b"\nmine\n\nmine too\n")],
        commit_message="mine",
        revision="refs/pr/1",
    )
    make_conflict(bench)
    plan = bench.plan(later(report()))
    assert plan.step == "update"
    assert any("conflicts" in note for note in plan.notes)
    bench.publish(later(report()))
    assert bench.server.read(REPO, "README.md", "refs/pr/1").endswith(b"mine too\n")


def _add(content: bytes):
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=content)


# --- may not ----------------------------------------------------------------------------------------------------------


def test_switched_off_pull_requests_are_respected(bench: Bench) -> None:
    bench.server.add_repo(REPO, {"README.md": CARD}, pull_requests=False)
    for form in ("pr", "discussion"):
        with pytest.raises(PublishRefused, match=r"403.*send the report to them in private"):
            bench.publish(report(), form)
    assert bench.writes() == []
    assert bench.publish(report(), "section", user="demo").startswith("committed ")


def test_a_token_that_may_only_read_is_known_before_writing(bench: Bench) -> None:
    for form in ("pr", "discussion", "section"):
        plan = bench.plan(report(), form, role="read")
        assert plan.block == "read_only"
        with pytest.raises(CouldNotConclude, match="role write"):
            bench.publish(report(), form, role="read")
    assert bench.writes() == []


def test_a_stranger_may_not_edit_the_card(bench: Bench) -> None:
    with pytest.raises(PublishRefused, match=r"403.*token that may write"):
        bench.publish(report(), "section")
    assert bench.server.read(REPO, "README.md") == CARD
    assert bench.counted() == []


def test_a_token_that_nobody_knows(bench: Bench) -> None:
    from quickhub import quick_hub

    from pipelines.publish import Publisher
    from pipelines.publishing.diary import Diary

    publisher = Publisher(quick_hub(bench.server, token="hf_wrong"), diary=Diary(bench.state))
    with pytest.raises(CouldNotConclude, match="token"):
        publisher.plan(report(), form="pr")


def test_the_token_goes_nowhere_else(bench: Bench) -> None:
    token = bench.server.token("audit-bot")
    plan = bench.plan(report())
    bench.publish(report())
    (thread,) = bench.server.discussions(REPO)
    for text in (plan.shown, *thread.comments, bench.server.read(REPO, "README.md", "refs/pr/1").decode()):
        assert token not in text
