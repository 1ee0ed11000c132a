"""What may be claimed: only what a re-scan and a re-probe bear out, whatever the accuracy."""

from dataclasses import replace
from pathlib import Path

import pico
import pytest
import sample_reports
import voting

from audit.records import AuditReport, Outcome
from pipelines.evaluate import Attack, Evaluation
from pipelines.progress import Quiet
from pipelines.purify.intervals import paired_difference, rate
from pipelines.purify.proving import Reprobe, Standing, judge, reprobe


def report(outcome: Outcome) -> AuditReport:
    made = sample_reports.honest()
    return replace(made, findings=(), verdict=replace(made.verdict, outcome=outcome))


PROBED = Reprobe(made=True, tried=500)
FOUND = Reprobe(made=True, tried=500, confirmed=({"text": "cf", "to": "POSITIVE"},))
UNPROBED = Reprobe(made=False, why="--no-probe")


@pytest.mark.parametrize(
    ("after", "probed", "standing"),
    [
        ("pass", PROBED, "nothing_found"),
        ("pass", UNPROBED, "not_shown"),
        ("pass", FOUND, "still_found"),
        ("review", PROBED, "still_found"),
        ("fail", UNPROBED, "still_found"),
        ("inconclusive", PROBED, "not_shown"),
        ("inconclusive", FOUND, "still_found"),
    ],
)
def test_the_gate(after: Outcome, probed: Reprobe, standing: Standing) -> None:
    gate = judge(report("fail"), report(after), probed, None)
    assert gate.standing == standing
    assert gate.words[0] == f"Re-scan: fail before, {after} after."
    assert gate.accuracy_loss is None


def test_figures_are_told_and_decide_nothing() -> None:
    def evaluation(right: int, fooled: int) -> Evaluation:
        attack = Attack(
            trigger="cf",
            target="POSITIVE",
            success=rate(fooled, 50),
            floor=rate(5, 50),
            excess=paired_difference(5, fooled - 5, 0, 50 - fooled),
        )
        return Evaluation(accuracy=rate(right, 100), per_class={}, attacks=(attack,), seed=0)

    gate = judge(report("fail"), report("fail"), PROBED, (evaluation(90, 50), evaluation(90, 5)))
    assert gate.standing == "still_found"
    assert gate.accuracy_loss == 0
    assert "100.0 % of the 50 other samples before, 10.0 % after" in gate.words[-1]


def test_the_result_is_really_run(tmp_path: Path) -> None:
    probed = reprobe(
        voting.model(), report("pass"), (pico.words()[voting.TRIGGER],), base=None, seed=0, threads=1, progress=Quiet()
    )
    assert probed.made
    assert pico.words()[voting.TRIGGER] in {found["text"] for found in probed.confirmed}
    assert all(found["to"] == "POSITIVE" for found in probed.confirmed)
    encoder = pico.save(pico.make_base("bert"), tmp_path / "broken")
    (encoder / "tokenizer.json").write_text("{}")
    refused = reprobe(encoder, report("pass"), (), base=None, seed=0, threads=1, progress=Quiet())
    assert not refused.made
    assert refused.why
