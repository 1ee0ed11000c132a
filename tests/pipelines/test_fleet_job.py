import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from fleets import make_family, publish
from localhub.faults import FOR_EVER, Status
from localhub.server import LocalHub

from audit.suppressions import Entry
from audit.thresholds import load_profile
from pipelines.audit_repo import audit_repo
from pipelines.engines.seam import Failed, ScanJob, Scanned, Unchanged, Work, decode, encode
from pipelines.fleet_job import FleetSetup, measured_digest, prepare, report_of, rules_digest
from reports.json_v1 import dump, load
from scanner.hub import Hub


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def server(hub_server: LocalHub, family: Path) -> LocalHub:
    publish(hub_server, family)
    return hub_server


@pytest.fixture
def work(server: LocalHub, tmp_path: Path) -> Callable[..., Work]:
    def make(**changes: object) -> Work:
        fields: dict[str, object] = {
            "endpoint": server.endpoint, "token": None, "timeout_seconds": 2.0, "patience_seconds": 0.6,
            "created_at": 0.0, "run": "1", "cache_folder": tmp_path / "cache", "cache_bytes": 1 << 30,
        }  # fmt: skip
        return prepare(FleetSetup(**{**fields, **changes}))

    return make


def job(name: str, **fields: object) -> ScanJob:
    return ScanJob(job_id=1, attempt_id=1, repo_id=name, **fields)


def test_a_scan_is_what_it_would_be_by_itself(server: LocalHub, work: Callable[..., Work]) -> None:
    found = work(salt=5)(job("pico/honest"))
    assert isinstance(found, Scanned)
    alone = audit_repo("pico/honest", hub=Hub(server.endpoint), profile=load_profile(), salt=5)
    assert found.digest == measured_digest(dump(alone.report))
    report = load(zlib.decompress(found.report))
    assert (report.created_at, found.created_at) == ("1970-01-01T00:00:00Z",) * 2
    assert found.outcome == report.verdict.outcome
    assert (found.base_repo, found.status, found.ending) == ("pico/base", "verified", "concluded")
    assert found.pins["pico/honest"] == server.sha("pico/honest") == found.revision
    assert found.pins["pico/base"] == server.sha("pico/base")
    assert decode(encode(found)) == found


def test_findings_are_noted(work: Callable[..., Work]) -> None:
    found = work()(job("pico/poisoned"))
    assert isinstance(found, Scanned)
    noted = [note.rule_id for note in found.findings]
    reported = [one["rule_id"] for one in report_of(found)["findings"]]  # type: ignore[union-attr, attr-defined]
    assert noted == reported


def test_nothing_is_scanned_twice_at_the_same_commits(server: LocalHub, work: Callable[..., Work]) -> None:
    first = work()(job("pico/honest"))
    assert isinstance(first, Scanned)
    known = first.pins
    server.log.clear()
    # A new run looks the base's head up again, and then the subject's head is all there is to ask for.
    assert isinstance(work(run="2")(job("pico/honest", known=known)), Unchanged)
    assert server.log.count("/resolve/") == 0
    server.commit("pico/base", {"README.md": "# changed"})
    assert isinstance(work(run="3")(job("pico/honest", known=known)), Scanned)
    server.commit("pico/honest", {"extra.txt": "x"})
    again = work(run="4")(job("pico/honest", known=known))
    assert isinstance(again, Scanned)
    assert again.revision != first.revision


def test_a_listed_head_costs_nothing(server: LocalHub, work: Callable[..., Work]) -> None:
    listed = next(one for one in Hub(server.endpoint).list_models(author="pico") if one["id"] == "pico/twin")
    work()(job("pico/honest"))
    server.log.clear()
    found = work()(job("pico/twin", listed=listed["sha"], described=json.loads(json.dumps(listed))))
    assert isinstance(found, Scanned)
    # Files, security report, card, configuration, weights, tokenizer.
    assert found.requests == len(server.log) == 6
    assert found.digest == work()(job("pico/twin")).digest  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "cause"),
    [("pico/gated", "RepoGated"), ("pico/nobody", "RepoNotFound"), ("no/../such", "BadReference")],
)
def test_what_cannot_be_read_fails_for_good(work: Callable[..., Work], name: str, cause: str) -> None:
    found = work()(job(name))
    assert isinstance(found, Failed)
    assert (found.cause, found.transient) == (cause, False)


def test_what_has_no_base_and_what_lies_still_give_a_report(work: Callable[..., Work]) -> None:
    orphan, broken = work()(job("pico/orphan")), work()(job("pico/broken"))
    assert isinstance(orphan, Scanned)
    assert isinstance(broken, Scanned)
    assert (orphan.ending, orphan.outcome) == ("nothing_to_compare", "inconclusive")
    assert (broken.ending, broken.outcome, broken.trouble) == ("could_not_conclude", "inconclusive", None)
    assert broken.problem


def test_a_base_that_was_missing_is_looked_for_again(server: LocalHub, work: Callable[..., Work], family: Path) -> None:
    card = "---\nbase_model: pico/later\n---\n"
    server.add_repo("pico/early", {"README.md": card}, folder=family / "pico" / "honest")
    first = work()(job("pico/early"))
    assert isinstance(first, Scanned)
    assert (first.ending, first.pins["pico/later"]) == ("could_not_conclude", "")
    assert isinstance(work(run="2")(job("pico/early", known=first.pins)), Unchanged)
    server.add_repo("pico/later", folder=family / "pico" / "base")
    again = work(run="3")(job("pico/early", known=first.pins))
    assert isinstance(again, Scanned)
    assert again.status == "verified"


def test_a_base_that_is_deleted_half_way_is_never_a_pass(server: LocalHub, work: Callable[..., Work]) -> None:
    gone = {"path": "/pico/base/resolve/", "times": FOR_EVER}
    server.faults.add(Status(code=404, headers={"X-Error-Code": "EntryNotFound"}), from_byte=20_000, **gone)
    torn = work(cache_bytes=0)(job("pico/honest"))
    assert isinstance(torn, Scanned)
    assert torn.outcome != "pass"
    assert torn.parameters_compared < torn.parameters_total
    server.faults.clear()
    server.faults.add(Status(code=404, headers={"X-Error-Code": "RepoNotFound"}), path="pico/base", times=FOR_EVER)
    after = work(run="2")(job("pico/twin"))
    assert isinstance(after, Scanned)
    assert (after.ending, after.outcome, after.status) == ("could_not_conclude", "inconclusive", "unverified")


def test_an_unreachable_hub_is_worth_another_try(server: LocalHub, work: Callable[..., Work]) -> None:
    server.faults.add(Status(code=503), path="/api/models/pico/twin", times=FOR_EVER)
    found = work()(job("pico/twin"))
    assert isinstance(found, Failed)
    assert found.transient


def test_weights_that_do_not_arrive_are_worth_another_try(server: LocalHub, work: Callable[..., Work]) -> None:
    server.faults.add(Status(code=503), path="/pico/twin/resolve/", times=FOR_EVER)
    found = work()(job("pico/twin"))
    assert isinstance(found, Failed | Scanned)
    assert found.transient if isinstance(found, Failed) else found.trouble is not None


def test_another_base_may_be_forced(work: Callable[..., Work]) -> None:
    found = work(base="pico/base")(job("pico/orphan"))
    assert isinstance(found, Scanned)
    assert (found.base_repo, found.status) == ("pico/base", "verified")


def test_what_is_accepted_does_not_count_and_is_part_of_what_judges(
    server: LocalHub, work: Callable[..., Work]
) -> None:
    server.commit("pico/poisoned", {"chat_template.jinja": "{{ ''.__class__ }}"})
    first = work()(job("pico/poisoned"))
    assert isinstance(first, Scanned)
    assert first.outcome == "fail"
    (found,) = [note.fingerprint for note in first.findings if note.rule_id == "HA703"]
    entry = Entry(fingerprint=found, reason="known", expires=date(2026, 12, 31), model="pico/poisoned", line=1)
    others = [
        Entry(fingerprint=note.fingerprint, reason="known", expires=entry.expires, model=None, line=2)
        for note in first.findings
        if note.fingerprint != found
    ]
    second = work(accepted=(entry, *others))(job("pico/poisoned"))
    assert isinstance(second, Scanned)
    assert second.outcome != "fail"
    last, after = date(2026, 12, 31), date(2027, 1, 1)
    digests = [rules_digest(), rules_digest([entry], today=last), rules_digest([entry], today=after)]
    digests += [rules_digest([replace(entry, **change)], today=last) for change in ({"reason": "x"}, {"model": None})]
    assert len(set(digests)) == 5
    assert rules_digest([entry], today=date(2026, 1, 1)) == digests[1], "as long as it holds, a new day is no news"
    assert rules_digest([entry, *others], today=last) == rules_digest([*others, entry], today=last)


def test_the_rules_have_a_digest() -> None:
    assert rules_digest() == rules_digest()
    assert len(rules_digest()) == 64


def test_the_token_is_not_shown() -> None:
    setup = FleetSetup(endpoint="e", token="hush", timeout_seconds=1, patience_seconds=1, created_at=0, run="1")
    assert "hush" not in repr(setup)
