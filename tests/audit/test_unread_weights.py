"""What was not read is never called clean: weights left unread turn a pass into inconclusive."""

import pytest

from audit.policy import decide
from audit.thresholds import load_profile
from scanner.records import Coverage, Lineage, RepoRef, Skip

REF = RepoRef(repo_id="org/model", revision="0" * 40)
LINEAGE = Lineage(candidate=REF, base=REF, relation="finetune", status="verified")


def coverage(*skips: Skip) -> Coverage:
    return Coverage(parameters_compared=99, parameters_total=100, bytes_read=1, bytes_total=1, skipped=skips)


@pytest.mark.parametrize(
    ("skips", "outcome"),
    [
        ((), "pass"),
        ((Skip(what="classifier.weight", why="task head, the base has none"),), "pass"),
        ((Skip(what="x in model.safetensors", why="dtype Q9 is not understood", unread=True),), "inconclusive"),
    ],
)
def test_unread_weights_forbid_a_pass(skips: tuple[Skip, ...], outcome: str) -> None:
    verdict = decide((), coverage(*skips), LINEAGE, load_profile())
    assert verdict.outcome == outcome
    if outcome != "pass":
        assert any("x in model.safetensors" in note for note in verdict.notes)
