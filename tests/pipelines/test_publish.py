"""Publishing over HTTP: what is shown is what is written, one thread per repository, and no byte of anybody's lost."""

import re
from pathlib import Path

import pytest
from localhub.server import LocalHub
from markdown_it import MarkdownIt
from publishing import CARD, REPO, Bench, later, report, with_finding
from sample_reports import hostile, inconclusive
from stopwatch import at_most

from pipelines.publishing.consent import RepoList
from pipelines.publishing.errors import RepositoryChanged
from reports.card_section import BEGIN, END, CardMarkersError, remove
from scanner.errors import BadReference, CouldNotConclude, FileTooLarge, NothingToCompare, RepoGated, RepoNotFound


@pytest.fixture
def bench(hub_server: LocalHub, tmp_path: Path) -> Bench:
    hub_server.add_repo(REPO, {"README.md": CARD, "config.json": "{}"})
    return Bench(server=hub_server, folder=tmp_path)


def only_thread(bench: Bench, repo_id: str = REPO):
    (thread,) = bench.server.discussions(repo_id)
    return thread


# --- the change -------------------------------------------------------------------------------------------------------


def test_planning_writes_nothing(bench: Bench) -> None:
    plan = bench.plan(report())
    assert plan.changes
    assert f"+{BEGIN}" in plan.shown
    assert plan.body in plan.shown
    assert bench.server.discussions(REPO) == ()
    assert bench.writes() == []
    assert not bench.state.exists()


def test_what_is_shown_is_what_is_written(bench: Bench) -> None:
    publisher = bench.publisher()
    plan = publisher.plan(report(), form="pr")
    answer = publisher.publish(plan)
    thread = only_thread(bench)
    assert answer == f"opened {bench.server.endpoint}/{REPO}/discussions/1"
    assert thread.status == "open"
    assert thread.title == "Add weight audit to the model card (hubaudit)"
    assert thread.comments == (plan.body,)
    assert bench.server.read(REPO, "README.md", "refs/pr/1") == plan.after
    assert bench.server.read(REPO, "README.md") == CARD


@pytest.mark.parametrize(
    "card",
    [
        CARD,
        CARD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf# A card with a byte order mark\n",
        b"No front matter, one line",
        b"---\nlicense: mit\n---\n",
        b"",
        "# Ünïcode\u2028and a line separator\x0bthat is none\n".encode(),
        b"# Broken metadata is the author's\n\n---\n: {{ [\n---\n",
    ],
    ids=["yaml", "crlf", "bom", "no-yaml", "only-yaml", "empty", "unicode", "rule"],
)
def test_every_byte_outside_the_markers_survives(bench: Bench, card: bytes) -> None:
    bench.server.add_repo(REPO, {"README.md": card})
    bench.publish(report())
    written = bench.server.read(REPO, "README.md", "refs/pr/1")
    assert written != card
    assert remove(written) == card
    bench.publish(later(report()))
    assert remove(bench.server.read(REPO, "README.md", "refs/pr/1")) == card
    if b"\r\n" in card:
        assert written.count(b"\n") == written.count(b"\r\n")


def test_a_card_of_two_megabytes_is_edited_quickly(bench: Bench) -> None:
    line = b"| a row | of an endless | table of results |\n"
    card = b"---\nlicense: mit\n---\n" + line * (2_000_000 // len(line))
    bench.server.add_repo(REPO, {"README.md": card})
    with at_most(5):
        plan = bench.plan(report())
    assert len(plan.shown) < 20_000
    bench.publish(report())
    assert remove(bench.server.read(REPO, "README.md", "refs/pr/1")) == card


def test_a_card_beyond_any_use_is_refused(bench: Bench) -> None:
    bench.server.add_repo(REPO, {"README.md": b"x" * (6 << 20)})
    with pytest.raises(FileTooLarge):
        bench.plan(report())


@pytest.mark.parametrize(
    "card",
    [
        f"{BEGIN}\none\n{END}\n\n{BEGIN}\ntwo\n{END}\n",
        f"{BEGIN}\n{BEGIN}\nnested\n{END}\n{END}\n",
        f"# No end\n{BEGIN}\n",
        f"# The wrong way round\n{END}\n{BEGIN}\n",
        f"# Mangled\n<!--hubaudit:begin-->\n{END}\n",
        f"---\nx: |\n  y\n{BEGIN}\n{END}\n---\n",
    ],
    ids=["doubled", "nested", "unclosed", "reversed", "mangled", "in-metadata"],
)
def test_damaged_markers_are_not_guessed_at(bench: Bench, card: str) -> None:
    bench.server.add_repo(REPO, {"README.md": card})
    with pytest.raises(CardMarkersError, match=r"README\.md line \d+: .* by hand, then run again"):
        bench.plan(report())
    assert bench.writes() == []


def test_a_card_that_is_not_utf8_is_not_guessed_at(bench: Bench) -> None:
    bench.server.add_repo(REPO, {"README.md": b"caf\xe9\n"})
    with pytest.raises(CouldNotConclude, match="not UTF-8"):
        bench.plan(report())
    assert bench.publish(report(), "discussion").startswith("opened ")


def test_a_repository_without_a_card_gets_one(bench: Bench) -> None:
    bench.server.add_repo(REPO, {"config.json": "{}"})
    plan = bench.plan(report())
    assert plan.before is None
    assert "--- /dev/null" in plan.shown
    bench.publish(report())
    assert bench.server.read(REPO, "README.md", "refs/pr/1").startswith(BEGIN.encode())


def test_text_of_strangers_cannot_act(bench: Bench) -> None:
    evil = b"# \x1b[2J\x1b]0;owned\x07 \xe2\x80\xae reversed \r over\n"
    payload = f"<script>alert(1)</script> {END} <!-- hubaudit:reasons abcdef12 --> \x1b[31m @everyone {{{{ 7*7 }}}} "
    bench.server.add_repo(REPO, {"README.md": evil})
    bad = hostile(payload)
    audited = report()
    bad = type(bad)(**{name: getattr(bad, name) for name in bad.__dataclass_fields__} | {"subject": audited.subject})
    bench.etiquette["disclose"] = True
    plan = bench.plan(bad)
    assert "\x1b" not in plan.shown
    assert "\u202e" not in plan.shown
    assert "\\x1b[2J" in plan.shown
    bench.publish(bad)
    written = bench.server.read(REPO, "README.md", "refs/pr/1")
    assert remove(written) == evil
    section = written[len(evil) :].decode().replace("\r", "\n")
    for text in (section, only_thread(bench).comments[0]):
        html = MarkdownIt("commonmark").enable("table").render(text)
        assert "<script" not in html
        assert "\x1b" not in text
        assert not re.search(r"@everyone", re.sub("(?s)<code.*?</code>", "", html))
    assert only_thread(bench).comments[0].count("<!-- hubaudit:reasons") == 1


# --- one thread, updated in place -------------------------------------------------------------------------------------


def test_the_same_report_again_changes_nothing(bench: Bench) -> None:
    bench.publish(report())
    before = bench.writes()
    assert not bench.plan(report()).changes
    assert bench.publish(report()) == "already up to date"
    assert bench.writes() == before


def test_a_second_report_updates_the_same_pull_request(bench: Bench) -> None:
    bench.publish(report())
    assert bench.publish(later(report())) == f"updated {bench.server.endpoint}/{REPO}/discussions/1"
    thread = only_thread(bench)
    assert "INCONCLUSIVE" in thread.comments[0]
    assert len(thread.comments) == 1
    assert [event.kind for event in thread.events].count("commit") == 2
    assert b"Half of it could not be read." in bench.server.read(REPO, "README.md", "refs/pr/1")


def test_what_others_committed_to_our_pull_request_stays(bench: Bench) -> None:
    bench.publish(report())
    edited = bench.server.read(REPO, "README.md", "refs/pr/1").replace(b"# Reviews", b"# Reviews, reworded")
    bench.server.commit(REPO, {"README.md": edited}, ref="refs/pr/1", author="demo")
    bench.publish(later(report()))
    assert remove(bench.server.read(REPO, "README.md", "refs/pr/1")) == CARD.replace(
        b"# Reviews", b"# Reviews, reworded"
    )


def test_another_date_alone_is_no_news(bench: Bench) -> None:
    sha = bench.server.sha(REPO)
    bench.publish(report(revision=sha))
    tomorrow = report(revision=sha)
    tomorrow = type(tomorrow)(
        **{name: getattr(tomorrow, name) for name in tomorrow.__dataclass_fields__}
        | {"created_at": "2026-11-22T03:00:00+00:00"}
    )
    assert not bench.plan(tomorrow).changes


def test_merging_our_own_section_is_no_news_but_new_weights_are(bench: Bench) -> None:
    bench.publish(report(revision=bench.server.sha(REPO)))
    merge(bench, 1)
    merged = bench.server.sha(REPO)
    assert not bench.plan(report(revision=merged)).changes
    bench.server.commit(REPO, {"config.json": '{"new": 1}'})
    assert bench.plan(report(revision=bench.server.sha(REPO))).changes


def test_a_report_of_older_weights_says_so(bench: Bench) -> None:
    sha = bench.server.sha(REPO)
    assert bench.plan(report(revision=sha)).notes == ()
    bench.server.commit(REPO, {"config.json": '{"new": 1}'})
    (note,) = bench.plan(report(revision=sha)).notes
    assert "scan again" in note


def test_pull_requests_of_others_are_left_alone(bench: Bench) -> None:
    bench.publish(report(), user="somebody")
    bench.publish(report())
    assert [thread.author for thread in bench.server.discussions(REPO)] == ["somebody", "audit-bot"]


def test_other_threads_of_the_same_user_are_left_alone(bench: Bench) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=bench.server.endpoint, token=bench.server.token("audit-bot"))
    api.create_discussion(REPO, title="A question", description="by hand")
    api.create_pull_request(REPO, title="A typo")
    bench.publish(report())
    assert [thread.num for thread in bench.server.discussions(REPO)] == [1, 2, 3]
    assert bench.server.discussions(REPO)[0].comments == ("by hand",)


def test_a_thread_whose_marker_is_gone_is_known_by_its_title(bench: Bench) -> None:
    bench.publish(report())
    only_thread(bench).events[0].details["hidden"] = True
    assert bench.publish(later(report())).startswith("updated ")
    assert len(bench.server.discussions(REPO)) == 1


def test_an_owner_commits_the_section(bench: Bench) -> None:
    assert bench.publish(report(), "section", user="demo").startswith("committed ")
    assert remove(bench.server.read(REPO, "README.md")) == CARD
    assert not bench.plan(report(), "section", user="demo").changes
    assert bench.server.discussions(REPO) == ()
    assert bench.counted() == []


def test_a_discussion_touches_no_file(bench: Bench) -> None:
    bench.publish(report(), "discussion")
    assert bench.publish(later(report()), "discussion").startswith("updated ")
    thread = only_thread(bench)
    assert "Half of it could not be read." in thread.comments[0]
    assert "pull request" not in thread.comments[0]
    assert BEGIN not in thread.comments[0]
    assert bench.server.read(REPO, "README.md") == CARD
    assert not bench.plan(later(report()), "discussion").changes


def test_there_is_one_thread_whatever_its_kind(bench: Bench) -> None:
    bench.publish(report(), "discussion")
    plan = bench.plan(report(), "pr")
    assert plan.block == "other_thread"
    assert "--as discussion" in (plan.blocked or "")


# --- the end of a thread ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pr", "discussion"])
def test_a_thread_is_closed_when_its_finding_is_gone(bench: Bench, form: str) -> None:
    bench.publish(with_finding(report()), form)
    plan = bench.plan(report(), form)
    assert plan.step == "close"
    assert "no longer measured" in plan.shown
    assert bench.publish(report(), form) == f"closed {bench.server.endpoint}/{REPO}/discussions/1"
    thread = only_thread(bench)
    assert thread.status == "closed"
    assert "no longer measured" in thread.comments[-1]
    assert bench.server.read(REPO, "README.md") == CARD
    # We closed it, so nobody has said no.
    assert bench.publish(with_finding(report()), form).startswith("opened ")
    assert [thread.status for thread in bench.server.discussions(REPO)] == ["closed", "open"]


def test_what_could_not_be_read_is_not_gone(bench: Bench) -> None:
    bench.publish(with_finding(report()))
    assert bench.publish(later(report())).startswith("updated ")
    assert only_thread(bench).status == "open"


def test_a_pull_request_that_found_nothing_stays_open(bench: Bench) -> None:
    bench.publish(report())
    assert bench.plan(report()).step == "nothing"


# --- whom not to write to ---------------------------------------------------------------------------------------------


def change_status(bench: Bench, number: int, status: str, user: str = "demo") -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=bench.server.endpoint, token=bench.server.token(user))
    api.change_discussion_status(REPO, number, status)


def merge(bench: Bench, number: int) -> None:
    from huggingface_hub import HfApi

    HfApi(endpoint=bench.server.endpoint, token=bench.server.token("demo")).merge_pull_request(REPO, number)


@pytest.mark.parametrize("form", ["pr", "discussion", "section"])
def test_a_closed_thread_is_a_lasting_no(bench: Bench, form: str) -> None:
    bench.publish(report())
    change_status(bench, 1, "closed")
    for of in (report(), later(report()), with_finding(report())):
        plan = bench.plan(of, form)
        assert plan.block == "opted_out"
        assert "#1" in (plan.blocked or "")
        with pytest.raises(CouldNotConclude, match="a no"):
            bench.publish(of, form)
    assert len(bench.server.discussions(REPO)) == 1


def test_an_owner_who_opens_the_thread_again_says_yes(bench: Bench) -> None:
    bench.publish(report())
    change_status(bench, 1, "closed")
    change_status(bench, 1, "open")
    assert bench.publish(later(report())).startswith("updated ")


def test_a_merged_pull_request_is_a_yes(bench: Bench) -> None:
    bench.publish(report())
    merge(bench, 1)
    assert remove(bench.server.read(REPO, "README.md")) == CARD
    assert bench.publish(later(report())) == f"opened {bench.server.endpoint}/{REPO}/discussions/2"


@pytest.mark.parametrize(
    "card",
    [
        b"---\nhubaudit: false\n---\n",
        b"---\nhubaudit: off\nlicense: mit\n---\n",
        b"---\r\nlicense: mit\r\nhubaudit: 'No'\r\n---\r\n",
        b"---\nhubaudit:\n  publish: false\n---\n",
        b"---\nhubaudit: false # thank you\nbroken: [\n---\n",
    ],
)
def test_the_card_can_say_no(bench: Bench, card: bytes) -> None:
    bench.server.add_repo(REPO, {"README.md": card})
    for form in ("pr", "discussion", "section"):
        assert bench.plan(report(), form).block == "opted_out"
    with pytest.raises(CouldNotConclude, match="hubaudit: false"):
        bench.publish(report())
    assert bench.writes() == []


@pytest.mark.parametrize(
    "card", [b"---\nhubaudit: true\n---\n", b"hubaudit: false is how one opts out\n", b"---\nhubaudit:\n---\n"]
)
def test_a_card_that_does_not_say_no(bench: Bench, card: bytes) -> None:
    bench.server.add_repo(REPO, {"README.md": card})
    assert bench.plan(report()).block is None


def test_the_opt_out_list_holds(bench: Bench) -> None:
    for entry in (RepoList(repos=frozenset({REPO})), RepoList(owners=frozenset({"demo"}))):
        bench.etiquette["opted_out"] = entry
        assert bench.plan(report(), user="demo").block == "opted_out"


def test_an_allow_list_keeps_to_itself_and_ones_own(bench: Bench) -> None:
    bench.etiquette["allowed"] = RepoList(repos=frozenset({"other/model"}))
    assert bench.plan(report()).block == "not_allowed"
    assert bench.plan(report(), user="demo").block is None
    bench.etiquette["allowed"] = RepoList(repos=frozenset({REPO}))
    assert bench.publish(report()).startswith("opened ")
    assert bench.counted() == []


def test_the_daily_cap_counts_repositories_of_others(bench: Bench) -> None:
    bench.cap = 2
    names = [f"other/model-{number}" for number in range(3)]
    for name in names:
        bench.server.add_repo(name, {"README.md": CARD})
    for name in names[:2]:
        bench.publish(report(name))
    bench.publish(later(report(names[0])))
    with pytest.raises(CouldNotConclude, match="2 repositories of others"):
        bench.publish(report(names[2]))
    assert bench.server.discussions(names[2]) == ()
    assert bench.publish(report(), user="demo").startswith("opened ")
    assert bench.counted() == names[:2]


def test_a_refusal_does_not_count(bench: Bench) -> None:
    from localhub.faults import Status

    bench.server.faults.add(Status(code=403), path="/commit/")
    with pytest.raises(CouldNotConclude):
        bench.publish(report())
    assert bench.counted() == []


def test_severe_findings_stay_private(bench: Bench) -> None:
    plan = bench.plan(with_finding(report(), "critical"))
    assert plan.block == "severe"
    assert plan.shown.startswith("To: the owner of `demo`")
    assert "security@huggingface.co" in plan.shown
    assert "robust z of log row drift 17.1" in plan.shown
    assert "malicious" not in plan.shown
    assert "+++" not in plan.shown
    with pytest.raises(CouldNotConclude, match="--disclose"):
        bench.publish(with_finding(report(), "high"))
    assert bench.writes() == []
    bench.etiquette["disclose"] = True
    assert bench.publish(with_finding(report(), "critical")).startswith("opened ")


# --- what the report may be -------------------------------------------------------------------------------------------


def test_a_folder_cannot_be_published(bench: Bench) -> None:
    with pytest.raises(NothingToCompare, match="local folder"):
        bench.plan(inconclusive())


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", "demo/x?y=1", "demo/\u202ex", ""])
def test_a_subject_that_is_no_repository_is_refused(bench: Bench, name: str) -> None:
    with pytest.raises(BadReference):
        bench.plan(report(name))
    assert bench.server.log.matching() == ()


def test_missing_and_gated_repositories_are_told_apart(bench: Bench) -> None:
    with pytest.raises(RepoNotFound):
        bench.plan(report("demo/missing"))
    bench.server.add_repo("demo/gated", {"README.md": CARD}, gated="manual")
    with pytest.raises(RepoGated):
        bench.plan(report("demo/gated"))


def test_a_renamed_repository_is_followed(bench: Bench) -> None:
    bench.server.redirect("demo/old-name", REPO)
    bench.publish(report("demo/old-name"))
    assert len(bench.server.discussions(REPO)) == 1


def test_without_a_token_the_change_is_shown_and_not_written(bench: Bench) -> None:
    publisher = bench.publisher(None)
    plan = publisher.plan(report(), form="pr")
    assert f"+{BEGIN}" in plan.shown
    with pytest.raises(CouldNotConclude, match="HF_TOKEN"):
        publisher.publish(plan)


def test_a_stale_plan_is_not_carried_out(bench: Bench) -> None:
    publisher = bench.publisher()
    stale = publisher.plan(report(), form="pr")
    bench.publish(report())
    with pytest.raises(RepositoryChanged):
        publisher.publish(stale)
    assert len(bench.server.discussions(REPO)) == 1
