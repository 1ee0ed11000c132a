import io
import json

import pytest
from lightjobs import scanned

from pipelines.engines.seam import Failed, ScanJob, Unchanged
from pipelines.fleet_progress import Bar, JsonLog, Several, Silent, Worst

JOB = ScanJob(job_id=1, attempt_id=1, repo_id="org/a\x1b[31m", size_bytes=10)
GONE = Failed(reason="gone", cause="RepoNotFound", transient=False)


def test_the_log_has_a_line_of_json_per_event() -> None:
    stream = io.StringIO()
    log = JsonLog(stream, clock=lambda: 12.3456)
    log.began(total=3, due=2, due_bytes=100)
    log.ended(JOB, scanned(JOB, outcome="fail"), again=False)
    log.ended(JOB, GONE, again=True)
    log.ended(JOB, Unchanged(requests=1), again=False)
    log.note("died", "x\ny")
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["began", "scanned", "failed", "unchanged", "died"]
    assert events[0] == {"time": 12.346, "event": "began", "total": 3, "due": 2, "due_bytes": 100}
    assert (events[1]["repo"], events[1]["outcome"], events[1]["findings"]) == (JOB.repo_id, "fail", ["HA201"])
    assert (events[2]["cause"], events[2]["again"]) == ("RepoNotFound", True)


def test_the_worst_is_remembered() -> None:
    worst = Worst()
    assert str(worst) == "nothing found yet"
    for outcome, score in (("pass", 0.4), ("review", 0.6), ("inconclusive", 0.9), ("review", 0.8), ("pass", 0.99)):
        worst.see(scanned(ScanJob(job_id=1, attempt_id=1, repo_id=f"org/{score}"), outcome=outcome, score=score))
    assert str(worst) == "review 0.80 org/0.8, HA201"


def test_the_bar_counts_and_cleans(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        bar.began(total=3, due=3, due_bytes=30)
        bar.ended(JOB, scanned(JOB, outcome="review"), again=False)
        bar.ended(JOB, GONE, again=True)
        bar.ended(JOB, GONE, again=False)
        bar.note("died", "org/x\x1b[31m[bold]: ended")
        fields = bar._work.tasks[0].fields
        assert fields["jobs"] == "2/3"
        assert "\x1b" not in fields["worst"]
        assert "repos/s" in fields["rate"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "\\x1b[31m[bold]: ended" in shown.err


def test_several_hear_the_same() -> None:
    streams = [io.StringIO(), io.StringIO()]
    several = Several([*(JsonLog(stream, clock=lambda: 1.0) for stream in streams), Silent()])
    several.began(total=1, due=1, due_bytes=1)
    several.ended(JOB, GONE, again=False)
    several.note("x", "y")
    assert streams[0].getvalue() == streams[1].getvalue() != ""
