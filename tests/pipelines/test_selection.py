from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from localhub.server import LocalHub

from pipelines.ledger_selection import Wanted
from pipelines.selection import Filters, Heads, Problems, Selection, read_ids, select, since, wanted_of
from scanner.errors import BadReference, HubUnreachable
from scanner.hub import Hub

CARD = "---\nbase_model: {base}\n---\n"


@pytest.fixture
def server(hub_server: LocalHub) -> LocalHub:
    hub_server.add_repo("org/base", {"README.md": "# base"}, downloads=500)
    hub_server.add_repo("org/child", {"README.md": CARD.format(base="org/base")}, downloads=50)
    hub_server.add_repo("me/grandchild", {"README.md": CARD.format(base="org/child")}, downloads=5)
    hub_server.add_repo("me/gated", {"README.md": CARD.format(base="org/base")}, gated="auto", downloads=1)
    return hub_server


def names(selection: Selection, server: LocalHub) -> list[str]:
    return [one.repo_id for one in select(selection, Hub(server.endpoint), Problems())]


def test_an_author_a_search_and_a_base(server: LocalHub) -> None:
    assert sorted(names(Selection(author="org"), server)) == ["org/base", "org/child"]
    assert names(Selection(search="grand"), server) == ["me/grandchild"]
    assert sorted(names(Selection(base="org/base"), server)) == ["me/gated", "org/child"]
    assert sorted(names(Selection(base="org/base", generations=3), server)) == [
        "me/gated",
        "me/grandchild",
        "org/child",
    ]


def test_a_circle_of_bases_ends(server: LocalHub) -> None:
    server.commit("org/base", {"README.md": CARD.format(base="me/grandchild")})
    found = names(Selection(base="org/base", generations=8), server)
    assert sorted(found) == ["me/gated", "me/grandchild", "org/base", "org/child"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(min_downloads=50), {"org/base", "org/child"}),
        (Filters(gating="gated"), {"me/gated"}),
        (Filters(gating="open"), {"org/base", "org/child", "me/grandchild"}),
        (Filters(limit=2), {"org/base", "org/child"}),
        (Filters(changed_after=datetime.now(UTC) + timedelta(days=1)), set()),
        (Filters(created_after=datetime.now(UTC) + timedelta(days=1)), set()),
        (
            Filters(changed_after=datetime.now(UTC) - timedelta(days=1)),
            {"org/base", "org/child", "me/grandchild", "me/gated"},
        ),
    ],
)
def test_filters(server: LocalHub, filters: Filters, expected: set[str]) -> None:
    assert set(names(Selection(search="", filters=filters), server)) == expected


def test_a_listing_ends_where_the_changes_end(server: LocalHub) -> None:
    server.configure(page_size=1)
    server.log.clear()
    later = datetime.now(UTC) + timedelta(days=1)
    assert names(Selection(author="org", filters=Filters(changed_after=later)), server) == []
    assert server.log.count("/api/models") == 1


def test_a_listing_tells_head_size_and_family(server: LocalHub) -> None:
    found = {one.repo_id: one for one in select(Selection(author="org"), Hub(server.endpoint), Problems())}
    child = found["org/child"]
    assert child.listed == server.sha("org/child")
    assert child.family == "org/base"
    assert child.described["sha"] == child.listed
    assert "security" not in child.described


def test_a_hostile_listing_names_no_family() -> None:
    about = {
        "id": "org/x",
        "sha": None,
        "base_models": ["../../etc", "https://evil.example/x/y", "a b"],
        "extra": "x" * 9,
    }
    assert wanted_of(about) == Wanted(repo_id="org/x", described={k: about[k] for k in ("id", "sha", "base_models")})


def test_a_file_of_ids(tmp_path: Path) -> None:
    (tmp_path / "org").mkdir()
    lines = [
        "org/a", "  org/b  # the second", "# nothing", "", "org/a", "ORG/A", "org/c@v1", "org/c", "org/c@main",
        "https://huggingface.co/org/d", "https://huggingface.co/org/e/tree/refs%2Fpr%2F1", "https://evil.example/x/y",
        "./org", "/etc/passwd", "~root/x", "../up", "a b", "org/\x1b[31m", "x" * 5000, "org/f@", "gpt2",
        "https://huggingface.co/datasets/org/x",
    ]  # fmt: skip
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(lines))
    problems = Problems()
    selection = Selection(models=path)
    found = [(one.repo_id, one.wanted) for one in select(selection, Hub("http://127.0.0.1:9"), problems)]
    assert found == [
        ("org/a", ""), ("org/b", ""), ("org/c", "v1"), ("org/c", ""), ("org/d", ""), ("org/e", "refs/pr/1"), ("gpt2", ""),
    ]  # fmt: skip
    assert problems.counts == {"named more than once": 3, "not a repository on the Hub": 10}
    assert not any("\x1b" in line for line in problems.named)


def test_a_folder_of_the_same_name_is_not_what_a_file_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ids.txt"
    path.write_text("org/model\n")
    assert [one.repo_id for one in read_ids(path, "https://huggingface.co", Problems())] == ["org/model"]


def test_a_hundred_thousand_lines_with_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("".join(f"org/m{number % 70_000}\n" for number in range(100_000)))
    problems = Problems()
    assert sum(1 for _ in select(Selection(models=path), Hub("http://127.0.0.1:9"), problems)) == 70_000
    assert problems.counts == {"named more than once": 30_000}
    assert len(problems.named) == 20


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadReference, match="cannot be read"):
        list(read_ids(tmp_path / "none", "https://huggingface.co", Problems()))


def test_binary_noise_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(bytes(range(256)) * 50)
    problems = Problems()
    assert list(read_ids(path, "https://huggingface.co", problems)) == []
    assert problems.counts


NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3d", NOW - timedelta(days=3)),
        ("12h", NOW - timedelta(hours=12)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
        ("last", NOW - timedelta(days=1)),
    ],
)
def test_since(text: str, expected: datetime) -> None:
    assert since(text, NOW - timedelta(days=1), NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "", "3w", "99999999d", "last"])
def test_since_what(text: str) -> None:
    with pytest.raises(BadReference, match="--since"):
        since(text, None, NOW)


def test_equal_questions_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    assert Selection(models=path).as_json() == Selection(models=tmp_path / "." / "ids").as_json()
    assert Selection(author="a").as_json() != Selection(author="b").as_json()


def test_heads_are_looked_up_once(server: LocalHub) -> None:
    heads = Heads(Hub(server.endpoint))
    base = server.sha("org/base")
    server.log.clear()
    assert heads.still({"org/base": base})
    assert heads.still({"org/base": base})
    assert not heads.still({"org/base": "0" * 40})
    assert not heads.still({"org/nobody": base})
    assert heads.still({"org/nobody": ""})
    assert not heads.still({"org/base": ""})
    assert heads.still({"org/base@main": base})
    assert len(server.log) == 3


def test_an_unreachable_hub_is_no_reason_to_scan_everything_again() -> None:
    hub = Hub("http://127.0.0.1:9", attempts=1, timeout_seconds=0.5)
    with pytest.raises(HubUnreachable):
        Heads(hub).still({"org/base": "0" * 40})
