"""Tokenizers and generation defaults: innocent changes stay a note, planted ones are told by their rule."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import evidence_for
import pytest
from side_tokenizers import ATTACKS, INNOCENT, make

from audit.detectors import generation_defaults, tokenizer_changes
from audit.evidence import Evidence, Hit
from scanner.facts import collect
from scanner.hub import Hub
from scanner.records import RepoRef, Skip
from scanner.side.reading import Remembered
from scanner.side.records import SideFacts
from scanner.side.tokenizer import compare_tokenizers
from scanner.side.values import compare_values
from scanner.tokens import read_tokens

HUB = Hub("http://127.0.0.1:9")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    for kind in ("bert", "gpt2", "unigram"):
        make(root / kind, kind)
    return {kind: root / kind for kind in ("bert", "gpt2", "unigram")}


def looked_at(base: Path, candidate: Path) -> Evidence:
    own, theirs = (collect(RepoRef(path=str(folder)), HUB) for folder in (candidate, base))
    skips: list[Skip] = []
    reader = Remembered(HUB)
    side = SideFacts(
        tokenizer=compare_tokenizers(own, theirs, reader, skips), values=compare_values(own, theirs, reader, skips)
    )
    assert not skips
    return dataclasses.replace(
        evidence_for.evidence(None, candidate=own, base=theirs), side=side, tokens=read_tokens(own, HUB)
    )


def judged(of: Evidence) -> list[Hit]:
    said = [*tokenizer_changes.DETECTOR.run(of), *generation_defaults.DETECTOR.run(of)]
    return [hit for hit in said if isinstance(hit, Hit)]


@pytest.mark.parametrize("name", INNOCENT)
def test_an_innocent_change_is_a_note_at_most(bases, tmp_path, name):
    kind, change = INNOCENT[name]
    candidate = Path(shutil.copytree(bases[kind], tmp_path / "candidate"))
    change(candidate)
    hits = judged(looked_at(bases[kind], candidate))
    assert all(hit.score == 0 for hit in hits), hits
    assert {hit.finding.severity for hit in hits if hit.finding} <= {"info", "low"}
    assert bool(hits) == (name not in {"the same", "saved again by the library", "merges in another spelling"})


@pytest.mark.parametrize("name", ATTACKS)
def test_a_planted_change_is_told(bases, tmp_path, name):
    rule, kind, change = ATTACKS[name]
    candidate = Path(shutil.copytree(bases[kind], tmp_path / "candidate"))
    change(candidate)
    of = looked_at(bases[kind], candidate)
    told = {hit.rule_id: hit for hit in judged(of)}
    assert rule in told, told
    assert told[rule].score >= of.profile.value("policy.review_score")
    assert evidence_for.report(of).verdict.outcome in {"review", "fail"}


def test_the_counts_in_the_rule_book_are_these():
    assert Counter(rule for rule, _, _ in ATTACKS.values()) == {"HA711": 4, "HA712": 9, "HA721": 8}
    assert len(INNOCENT) == 19


def test_a_changed_tokenizer_without_more_is_ha713(bases, tmp_path):
    candidate = Path(shutil.copytree(bases["bert"], tmp_path / "candidate"))
    INNOCENT["domain words added"][1](candidate)
    hits = judged(looked_at(bases["bert"], candidate))
    assert "HA713" in {hit.rule_id for hit in hits}
