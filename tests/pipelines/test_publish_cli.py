"""``hubaudit publish`` as its users run it: exit codes, dry run, several reports, and no traceback."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub
from publishing import CARD, REPO, later, report, with_finding

from audit.records import AuditReport
from pipelines.cli import cli
from reports.card_section import remove
from reports.json_v1 import dump

Publish = Callable[..., Result]


@pytest.fixture
def publish(hub_server: LocalHub, tmp_path: Path) -> Publish:
    """Run the command on reports, as a user with a token would."""
    hub_server.add_repo(REPO, {"README.md": CARD})
    bot = hub_server.token("audit-bot")

    def run(reports: AuditReport | list[AuditReport], *options: str, token: str | None = bot) -> Result:
        paths = []
        for number, one in enumerate(reports if isinstance(reports, list) else [reports]):
            paths.append(tmp_path / f"report-{number}.json")
            paths[-1].write_bytes(dump(one))
        environment = {"HF_TOKEN": token, "HUBAUDIT_STATE": str(tmp_path / "state"), "HUBAUDIT_PATIENCE": "0.1"}
        done = CliRunner().invoke(cli, ["publish", *map(str, paths), *options], env=environment)
        assert "Traceback" not in done.output
        return done

    return run


def test_it_shows_then_writes_then_updates(publish: Publish, hub_server: LocalHub) -> None:
    shown = publish(report())
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("--- a/README.md")
    assert "dry run" in shown.stderr
    assert hub_server.discussions(REPO) == ()

    opened = publish(report(), "--yes")
    assert opened.exit_code == 0
    assert opened.stdout.endswith(f"opened {hub_server.endpoint}/{REPO}/discussions/1\n")
    assert publish(later(report()), "--yes").stdout.endswith("/discussions/1\n")
    assert len(hub_server.discussions(REPO)) == 1
    assert "up to date" in publish(later(report()), "--yes").stderr


def test_severe_findings_become_a_letter(publish: Publish, hub_server: LocalHub) -> None:
    done = publish(with_finding(report(), "critical"), "--yes")
    assert done.exit_code == 1
    assert done.stdout.startswith("To: the owner of `demo`")
    assert "--disclose" in done.stderr
    assert hub_server.discussions(REPO) == ()
    assert publish(with_finding(report(), "critical"), "--yes", "--disclose").exit_code == 0


def test_it_needs_to_know_who_writes(publish: Publish) -> None:
    assert publish(report(), token=None).exit_code == 0
    for token in (None, "hf_wrong"):
        done = publish(report(), "--yes", token=token)
        assert done.exit_code == 3
        assert "HF_TOKEN" in done.stderr


def test_an_owners_no_is_no_failure(publish: Publish, hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"README.md": b"---\nhubaudit: false\n---\n"})
    done = publish(report(), "--yes")
    assert done.exit_code == 0
    assert "opts out" in done.stderr
    assert hub_server.discussions(REPO) == ()


def test_lists_are_read_and_bad_ones_refused(publish: Publish, hub_server: LocalHub, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("demo/*\n")
    assert "opt-out list" in publish(report(), "--yes", "--opt-out", str(names)).stderr
    assert publish(report(), "--yes", "--allow", str(names)).exit_code == 0
    assert len(hub_server.discussions(REPO)) == 1
    names.write_text("what is this?\n")
    assert publish(report(), "--opt-out", str(names)).exit_code == 2


def test_several_reports_own_ones_first_and_a_failure_stops_none(publish: Publish, hub_server: LocalHub) -> None:
    for name in ("other/a", "other/b", "audit-bot/mine"):
        hub_server.add_repo(name, {"README.md": CARD})
    names = ["other/a", "other/missing", "other/b", "audit-bot/mine"]
    done = publish([report(name) for name in names], "--yes", "--daily-cap", "1")
    assert done.exit_code == 3
    opened = [line.split("/")[-3] for line in done.stdout.splitlines() if line.startswith("opened ")]
    assert opened == ["mine", "a"]
    assert "other/missing does not exist" in done.stderr
    assert "today's limit of 1" in done.stderr
    assert hub_server.discussions("other/b") == ()


def test_a_change_in_between_is_planned_again(publish: Publish, hub_server: LocalHub) -> None:
    hub_server.faults.add(Status(code=412, message="The branch was updated"), path="/commit/")
    done = publish(report(), "--as", "section", "--yes", token=hub_server.token("demo"))
    assert done.exit_code == 0
    assert done.stdout.count("+++ b/README.md") == 2
    assert "committed " in done.stdout


def test_a_repository_that_never_holds_still_is_given_up(publish: Publish, hub_server: LocalHub) -> None:
    hub_server.faults.add(Status(code=412), path="/commit/", times=FOR_EVER)
    done = publish(report(), "--as", "section", "--yes", token=hub_server.token("demo"))
    assert done.exit_code == 3
    assert "run the same command again" in done.stderr


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema": "something/else"}))
    assert CliRunner().invoke(cli, ["publish", str(path)]).exit_code == 2
    assert CliRunner().invoke(cli, ["publish", str(tmp_path / "missing")]).exit_code == 2


def test_one_line_goes_into_the_metadata_and_is_kept_up_to_date(publish: Publish, hub_server: LocalHub) -> None:
    sha = hub_server.sha(REPO)
    first = report(revision=sha)
    url = "https://example.org/report.html"
    done = publish(first, "--yes", "--front-matter", "--report-url", url)
    assert done.exit_code == 0, done.output
    line = f'hubaudit: {{verdict: "pass", date: "2026-11-20", report: "{url}"}}\n'.encode()
    written = hub_server.read(REPO, "README.md", "refs/pr/1")
    assert line in written
    assert remove(written).replace(line, b"") == CARD
    assert f"+{line.decode()}" in done.stdout

    tomorrow = dataclasses.replace(first, created_at="2026-11-22T03:00:00+00:00")
    again = publish(tomorrow, "--yes", "--front-matter", "--report-url", url)
    assert "up to date" in again.stderr, "another date alone is no news"

    # Without the option the line that is there is kept up to date all the same.
    assert publish(later(first), "--yes").exit_code == 0
    written = hub_server.read(REPO, "README.md", "refs/pr/1")
    assert written.count(b"\nhubaudit: {") == 1
    assert b'verdict: "inconclusive"' in written


def test_metadata_that_cannot_take_a_line_is_left_alone(publish: Publish, hub_server: LocalHub) -> None:
    hub_server.add_repo(REPO, {"README.md": b"# No metadata\n"})
    done = publish(report(), "--yes", "--front-matter")
    assert done.exit_code == 0
    assert "no metadata block. It was left as it is" in done.stderr
    assert remove(hub_server.read(REPO, "README.md", "refs/pr/1")) == b"# No metadata\n"


@pytest.mark.parametrize(
    "options",
    [("--report-url", "https://x.org"), ("--front-matter", "--report-url", "http://x.org/a b")],
)
def test_a_bad_address_is_said_before_the_hub_is_asked(
    publish: Publish, hub_server: LocalHub, options: tuple[str, ...]
) -> None:
    assert publish(report(), *options).exit_code == 2
    assert not hub_server.log.matching(method="GET")
