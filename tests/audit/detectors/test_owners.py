"""Names that are nearly another's, ordinary names, and bases that are not what they were."""

import dataclasses

import evidence_for
import pytest
from localhub.server import LocalHub
from quickhub import pinned, quick_hub

from audit.detectors.owners import DETECTOR, HISTORY, LOOKALIKE
from audit.evidence import Evidence, Hit
from audit.lookalikes import known_owners, likeness, nearest
from scanner.facts import collect
from scanner.side.gather import look_around
from scanner.side.records import BaseHistory, SideFacts

PLANTED = {
    "EleuterAI": "EleutherAI",
    "m1strala1": "mistralai",
    "meta_llama": "meta-llama",
    "meta-llarna": "meta-llama",
    "deepseekai": "deepseek-ai",
    "microsfot": "microsoft",
    "nvidia-official": "nvidia",
    "stabillityai": "stabilityai",
}
ORDINARY = (
    "TheBloke", "bartowski", "mlabonne", "teknium", "jondurbin", "cognitivecomputations", "ehartford", "lmsys",
    "Undi95", "Gryphe", "KoboldAI", "pankajmathur", "garage-bAInd", "upstart", "WizardLM", "VAGOsolutions", "migtissera",
    "abacusai", "argilla", "berkeley-nest", "chargoddard", "CausalLM", "Deci", "defog", "elyza", "fblgit", "haoranxu",
    "HuggingFace", "instruction-pretrain", "jphme", "kaist-ai", "llm-agents", "malteos", "NeverSleep", "OpenAssistant",
    "psmathur", "rinna", "speakleash", "appel", "vicgalle",
)  # fmt: skip


def of(candidate: str, base: str = "org/base", history: BaseHistory | None = None) -> Evidence:
    return dataclasses.replace(
        evidence_for.evidence(None, candidate=evidence_for.repo(candidate), base=evidence_for.repo(base)),
        side=SideFacts(history=history),
    )


def judged(evidence: Evidence) -> list[Hit]:
    return [hit for hit in DETECTOR.run(evidence) if isinstance(hit, Hit) and hit.finding]


@pytest.mark.parametrize("owner", PLANTED)
def test_a_name_that_is_nearly_the_bases_owner_asks_for_a_review(owner):
    evidence = of(f"{owner}/model", f"{PLANTED[owner]}/model")
    (hit,) = judged(evidence)
    assert (hit.rule_id, hit.score) == (LOOKALIKE.id, evidence.profile.value("HA751.score"))
    assert evidence_for.report(evidence).verdict.outcome == "review"


@pytest.mark.parametrize("owner", PLANTED)
def test_and_is_told_of_whoever_the_base_is(owner):
    assert [hit.rule_id for hit in judged(of(f"{owner}/model"))] == [LOOKALIKE.id]
    assert [hit.rule_id for hit in judged(of("me/model", f"{owner}/model"))] == [LOOKALIKE.id]


def test_ordinary_owners_are_not_told():
    assert [owner for owner in ORDINARY if judged(of(f"{owner}/model", "mistralai/x"))] == []
    assert (len(PLANTED), len(ORDINARY)) == (8, 40)


def test_no_known_owner_is_told():
    known = known_owners()
    assert len(set(known)) == len(known) > 60
    assert [owner for owner in known if judged(of(f"{owner}/model", "meta-llama/x"))] == []
    assert [owner for owner in known if nearest(owner, known, least_chars=6)] == []


@pytest.mark.parametrize(("one", "other"), [("google", "Google"), ("ab", "ac"), ("org", "0rgs"), ("", "google")])
def test_what_is_no_likeness(one, other):
    assert likeness(one, other, least_chars=6) is None


def history(**changes: str | bool | None) -> BaseHistory:
    facts = {
        "asked": "org/base",
        "found": "org/base",
        "created": "2024-01-01T00:00:00Z",
        "candidate_created": "2024-06-01T00:00:00Z",
    }
    return BaseHistory(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words", "severity"),
    [
        ({"found": "other/base"}, "its owner has changed", "low"),
        ({"created": "2024-09-01T00:00:00Z"}, "created 92 days after", "medium"),
        ({"first_commit": "2024-07-01T00:00:00.000Z"}, "oldest commit", "low"),
        ({"first_commit": "2024-07-01T00:00:00Z", "squashed": True}, "squashed", "low"),
    ],
)
def test_a_base_that_changed_informs(changes, words, severity):
    (hit,) = judged(of("org/model", history=history(**changes)))
    assert hit.finding is not None
    assert (hit.rule_id, hit.score, hit.finding.severity) == (HISTORY.id, 0.0, severity)
    assert words in hit.finding.explanation


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"asked": "ORG/base"},
        {"asked": "base", "found": "org/base"},
        {"created": None},
        {"created": "2024-06-01T12:00:00Z"},
        {"created": "never"},
        {"first_commit": "2024-01-01T00:00:00Z"},
        {"candidate_created": "2024-06-01T00:00:00", "created": "2025-01-01T00:00:00+00:00"},
    ],
)
def test_an_ordinary_history_says_nothing(changes):
    assert judged(of("org/model", history=history(**changes))) == []


def test_a_name_that_was_registered_again_is_found_on_the_hub(hub_server: LocalHub):
    hub_server.add_repo("new/base", {"a.txt": "x"})
    hub_server.add_repo("org/model", {"README.md": "---\nbase_model: old/base\n---\n"})
    hub_server.redirect("old/base", "new/base")
    hub_server._state.repos["org/model"].created = "2023-01-01T00:00:00.000Z"
    hub = quick_hub(hub_server)
    candidate, base = collect(pinned(hub, "org/model"), hub), collect(pinned(hub, "old/base"), hub)
    side = look_around(candidate, base, hub, declared="old/base")
    told = judged(dataclasses.replace(evidence_for.evidence(None, candidate=candidate, base=base), side=side))
    assert [hit.finding.severity for hit in told if hit.finding] == ["low", "medium"]
    assert {hit.rule_id for hit in told} == {HISTORY.id}
