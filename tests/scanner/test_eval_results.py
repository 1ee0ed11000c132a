"""``.eval_results``: the Hub's form read, everything else a skip."""

import pytest
from localhub.faults import FOR_EVER, Status

from scanner.card_context import PublishedScore
from scanner.eval_results import MAX_ENTRIES, MAX_FILES, number, parse_results, read_results
from scanner.facts import collect
from scanner.hub import Hub
from scanner.plain_yaml import BadYaml
from scanner.refs import parse_spec

GOOD = """- dataset:
    id: cais/hle
    task_id: default
  value: 20.9
  date: 2026-01-15
- dataset: {id: Idavidrein/gpqa, task_id: diamond}
  value: "0.412"
"""


def read(hub_server, files):
    hub_server.add_repo("org/model", {"README.md": "x", **files})
    hub = Hub(endpoint=hub_server.endpoint, timeout_seconds=10, max_wait_seconds=1)
    return read_results(collect(hub.resolve(parse_spec("org/model", endpoint=hub.endpoint)), hub), hub)


def test_entries_are_read_over_http(hub_server):
    scores, skips = read(hub_server, {".eval_results/a.yaml": GOOD})
    assert skips == ()
    assert scores == (
        PublishedScore(dataset="cais/hle", task="default", value=20.9, file=".eval_results/a.yaml"),
        PublishedScore(dataset="Idavidrein/gpqa", task="diamond", value=0.412, file=".eval_results/a.yaml"),
    )


def test_no_files_cost_no_request(hub_server):
    scores, skips = read(hub_server, {"results.yaml": GOOD})
    assert (scores, skips) == ((), ())
    assert hub_server.log.matching("results.yaml", method="GET") == ()


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['x']",
        "[",
        "just words",
        "\x00",
        "a: &a [*a]",
        "- 3\n- x",
        "{}",
        "- dataset: [1]",
    ],
)
def test_other_content_is_a_skip_or_nothing(hub_server, text):
    scores, skips = read(hub_server, {".eval_results/a.yaml": text, ".eval_results/b.yaml": GOOD})
    assert len([score for score in scores if score.dataset]) == 2
    assert len(skips) <= 1


def test_more_files_than_are_read_is_said(hub_server):
    scores, skips = read(hub_server, {f".eval_results/{i:02}.yaml": GOOD for i in range(MAX_FILES + 3)})
    assert len(scores) == 2 * MAX_FILES
    assert skips[0].what == "3 more files of results"


def test_a_failing_hub_leaves_skips(hub_server):
    hub_server.faults.add(Status(code=500), path=".eval_results", times=FOR_EVER)
    scores, skips = read(hub_server, {".eval_results/a.yaml": GOOD})
    assert scores == ()
    assert skips[0].what == ".eval_results/a.yaml"


def test_a_long_file_is_bounded():
    assert len(parse_results("- value: 1\n" * 5_000, "x")) == MAX_ENTRIES
    with pytest.raises(BadYaml):
        parse_results("- [" * 400, "x")


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (1, 1.0),
        ("91.2%", 91.2),
        ("0.5", 0.5),
        (True, None),
        (None, None),
        ("x", None),
        ("nan", None),
        (float("inf"), None),
    ],
)
def test_numbers(value, read_as):
    assert number(value) == read_as
