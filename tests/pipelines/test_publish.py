"""Publishing over HTTP: what is shown is what is written, one thread per repository, and no byte of anybody's lost."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from localhub.server import LocalHub
from sample_reports import honest, inconclusive, poisoned_row

from audit.records import AuditReport
from pipelines.cli import cli
from pipelines.publish import Publisher
from reports.card_section import remove
from reports.json_v1 import dump
from scanner.errors import CouldNotConclude, NothingToCompare

CARD = b"""---
license: mit  # a comment that survives
version: 1.10
---
# Reviews

Text with trailing space \nand no line end at the end"""
REPO = "demo/reviews-honest"


@pytest.fixture
def publisher(hub_server: LocalHub) -> Publisher:
    hub_server.add_repo(REPO, {"README.md": CARD})
    return Publisher(endpoint=hub_server.endpoint, token=hub_server.token("audit-bot"))


def later(report: AuditReport) -> AuditReport:
    """The same model, measured again with another outcome."""
    verdict = dataclasses.replace(report.verdict, outcome="inconclusive", notes=("Half of it could not be read.",))
    return dataclasses.replace(report, created_at="2026-11-21T08:07:00+00:00", verdict=verdict)


def writes(server: LocalHub) -> list[str]:
    return [record.target for method in ("POST", "PUT", "DELETE") for record in server.log.matching(method=method)]


def test_planning_writes_nothing(publisher: Publisher, hub_server: LocalHub) -> None:
    plan = publisher.plan(honest(), form="pr")
    assert plan.changes
    assert "+<!-- hubaudit:begin -->" in plan.shown
    assert plan.body in plan.shown
    assert hub_server.discussions(REPO) == ()
    assert writes(hub_server) == []


def test_what_is_shown_is_what_is_written(publisher: Publisher, hub_server: LocalHub) -> None:
    plan = publisher.plan(honest(), form="pr")
    answer = publisher.publish(plan)
    (thread,) = hub_server.discussions(REPO)
    assert answer == f"opened {hub_server.endpoint}/{REPO}/discussions/1"
    assert thread.status == "open"
    assert thread.comments == (plan.body,)
    assert hub_server.read(REPO, "README.md", "refs/pr/1") == plan.after
    assert hub_server.read(REPO, "README.md") == CARD


@pytest.mark.parametrize(
    "card",
    [
        CARD,
        CARD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf# A card with a byte order mark\n",
        b"No front matter, one line",
        b"---\nlicense: mit\n---\n",
        b"",
    ],
    ids=["yaml", "crlf", "bom", "no-yaml", "only-yaml", "empty"],
)
def test_every_byte_outside_the_markers_survives(publisher: Publisher, hub_server: LocalHub, card: bytes) -> None:
    hub_server.add_repo(REPO, {"README.md": card})
    publisher.publish(publisher.plan(honest(), form="pr"))
    written = hub_server.read(REPO, "README.md", "refs/pr/1")
    assert written != card
    assert remove(written) == card


def test_a_card_that_is_not_utf8_is_not_guessed_at(publisher: Publisher, hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"README.md": b"caf\xe9\n"})
    with pytest.raises(CouldNotConclude, match="not UTF-8"):
        publisher.plan(honest(), form="pr")
    assert publisher.publish(publisher.plan(honest(), form="discussion")).startswith("opened ")


def test_a_repository_without_a_card_gets_one(publisher: Publisher, hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"config.json": "{}"})
    plan = publisher.plan(honest(), form="pr")
    assert plan.before is None
    assert "--- /dev/null" in plan.shown
    publisher.publish(plan)
    assert hub_server.read(REPO, "README.md", "refs/pr/1").startswith(b"<!-- hubaudit:begin -->")


def test_the_same_report_again_changes_nothing(publisher: Publisher, hub_server: LocalHub) -> None:
    publisher.publish(publisher.plan(honest(), form="pr"))
    before = len(writes(hub_server))
    again = publisher.plan(honest(), form="pr")
    assert not again.changes
    assert len(writes(hub_server)) == before


def test_a_second_report_updates_the_same_pull_request(publisher: Publisher, hub_server: LocalHub) -> None:
    publisher.publish(publisher.plan(honest(), form="pr"))
    plan = publisher.plan(later(honest()), form="pr")
    assert publisher.publish(plan) == f"updated {hub_server.endpoint}/{REPO}/discussions/1"
    (thread,) = hub_server.discussions(REPO)
    assert thread.comments == (plan.body,)
    assert [event.kind for event in thread.events].count("commit") == 2
    written = hub_server.read(REPO, "README.md", "refs/pr/1")
    assert b"Half of it could not be read." in written
    assert remove(written) == CARD


def test_pull_requests_of_others_are_left_alone(publisher: Publisher, hub_server: LocalHub) -> None:
    stranger = Publisher(endpoint=hub_server.endpoint, token=hub_server.token("somebody"))
    stranger.publish(stranger.plan(honest(), form="pr"))
    publisher.publish(publisher.plan(honest(), form="pr"))
    assert [thread.author for thread in hub_server.discussions(REPO)] == ["somebody", "audit-bot"]


def test_an_owner_commits_the_section(hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"README.md": CARD})
    owner = Publisher(endpoint=hub_server.endpoint, token=hub_server.token("demo"))
    assert owner.publish(owner.plan(honest(), form="section")).startswith("committed ")
    assert remove(hub_server.read(REPO, "README.md")) == CARD
    assert not owner.plan(honest(), form="section").changes
    assert hub_server.discussions(REPO) == ()


def test_a_discussion_touches_no_file(publisher: Publisher, hub_server: LocalHub) -> None:
    publisher.publish(publisher.plan(honest(), form="discussion"))
    again = publisher.plan(later(honest()), form="discussion")
    assert publisher.publish(again).startswith("updated ")
    (thread,) = hub_server.discussions(REPO)
    assert [text.strip() for text in thread.comments] == [again.body.strip()]
    assert hub_server.read(REPO, "README.md") == CARD


def test_severe_findings_stay_private(publisher: Publisher, hub_server: LocalHub) -> None:
    report = poisoned_row()
    hub_server.add_repo("demo/reviews-poisoned-row", {"README.md": CARD})
    plan = publisher.plan(report, form="pr")
    assert plan.blocked
    with pytest.raises(CouldNotConclude):
        publisher.publish(plan)
    assert writes(hub_server) == []
    disclosed = publisher.plan(report, form="pr", disclose=True)
    assert publisher.publish(disclosed).startswith("opened ")


def test_a_folder_cannot_be_published(publisher: Publisher) -> None:
    with pytest.raises(NothingToCompare, match="local folder"):
        publisher.plan(inconclusive(), form="pr")


@pytest.fixture
def publish(hub_server: LocalHub, tmp_path: Path) -> Callable[..., Result]:
    """Run ``hubaudit publish`` on a report, as a user with a token would."""
    token = hub_server.token("audit-bot")

    def run(report: AuditReport, *options: str, token: str | None = token) -> Result:
        path = tmp_path / "report.json"
        path.write_bytes(dump(report))
        return CliRunner().invoke(cli, ["publish", str(path), *options], env={"HF_TOKEN": token})

    return run


def test_the_command_shows_then_writes_then_updates(publish: Callable[..., Result], hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"README.md": CARD})
    shown = publish(honest())
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("--- a/README.md")
    assert "dry run" in shown.stderr
    assert hub_server.discussions(REPO) == ()

    opened = publish(honest(), "--yes")
    assert opened.exit_code == 0
    assert opened.stdout.endswith(f"opened {hub_server.endpoint}/{REPO}/discussions/1\n")
    assert publish(later(honest()), "--yes").stdout.endswith("/discussions/1\n")
    assert len(hub_server.discussions(REPO)) == 1
    assert "up to date" in publish(later(honest()), "--yes").stderr


def test_the_command_needs_to_know_who_writes(publish: Callable[..., Result], hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"README.md": CARD})
    for token in (None, "hf_wrong"):
        done = publish(honest(), "--yes", token=token)
        assert done.exit_code == 3
        assert "HF_TOKEN" in done.stderr
        assert "Traceback" not in done.output


def test_the_command_refuses_what_is_no_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema": "something/else"}))
    done = CliRunner().invoke(cli, ["publish", str(path)])
    assert done.exit_code == 2
