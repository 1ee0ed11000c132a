"""Which bank speaks for a model."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from pico_cases import Arrays, evidence

from audit.banks import suit
from audit.evidence import Evidence
from audit.readings import calibrated
from audit.records import RuntimeRecord
from audit.run import audit
from audit.thresholds import CleanBank, Profile, load_profile
from audit.traits import TRAITS, traits_of


def bank_of(of: Evidence, *, spread: float = 1.0, **more: Any) -> CleanBank:
    """A bank of 99 models around the traits of this one."""
    assert of.drift is not None
    centre = traits_of(of.drift)
    assert centre is not None
    rows = centre + spread * np.random.default_rng(0).normal(size=(99, len(TRAITS)))
    settings: dict[str, Any] = {
        "id": "pico",
        "calibration": "99 made-up models",
        "model_types": ("bert",),
        "parameters": of.drift.coverage.parameters_total,
        "clean_scores": tuple(np.linspace(0, 0.4, 99).tolist()),
        "values": {"HA301.review": 1.23},
        "traits": tuple(tuple(row) for row in rows.tolist()),
    }
    return CleanBank(**(settings | more))


def under(of: Evidence, *banks: CleanBank) -> Evidence:
    """The evidence under a profile with these banks."""
    return dataclasses.replace(of, profile=dataclasses.replace(load_profile(), banks=banks))


def shrunk(base: Arrays, candidate: Arrays) -> None:
    """What no model of the bank has been through: every weight a tenth smaller, nothing else."""
    for name in base:
        candidate[name] = (0.9 * base[name]).astype(np.float32)


def test_a_model_like_those_of_the_bank_gets_its_thresholds_and_rates() -> None:
    of = evidence()
    suited = suit(under(of, bank_of(of)))
    profile = suited.evidence.profile
    assert (suited.abstains, profile.bank, profile.clean_models) == ("", "pico", 99)
    assert profile.value("HA301.review") == 1.23
    assert profile.value("HA302.review") == load_profile().value("HA302.review")
    assert calibrated(suited.evidence)
    assert suited.likeness is not None
    assert suited.likeness.p_value > 0.02


def test_a_recipe_that_the_bank_does_not_hold_gets_no_rate_and_the_reason() -> None:
    of = evidence(change=shrunk)
    made = audit(
        under(of, bank_of(evidence(), spread=0.1)),
        created_at="2026-11-20T08:00:00Z",
        tool_version="1",
        runtime=RuntimeRecord(seconds=1, peak_rss_bytes=1, requests=0),
    )
    assert made.verdict.false_positive_rate is None
    assert made.verdict.calibration == ""
    assert any("was fine-tuned like this one" in note for note in made.verdict.notes)
    assert made.profile["bank"] == "pico"
    assert made.profile["likeness"] == pytest.approx(0.01)


def test_a_model_inside_the_bank_gets_its_rate_in_the_report() -> None:
    of = evidence()
    made = audit(
        under(of, bank_of(of)),
        created_at="2026-11-20T08:00:00Z",
        tool_version="1",
        runtime=RuntimeRecord(seconds=1, peak_rss_bytes=1, requests=0),
    )
    assert made.verdict.false_positive_rate is not None
    assert made.verdict.calibration.startswith("99 made-up models")


def test_exact_facts_count_outside_the_bank() -> None:
    def one_row(base: Arrays, candidate: Arrays) -> None:
        for name in base:
            candidate[name] = base[name].copy()
        candidate["embeddings.word_embeddings.weight"][47] += 1.0

    of = evidence(change=one_row)
    made = audit(
        under(of, bank_of(evidence(), spread=0.1)),
        created_at="2026-11-20T08:00:00Z",
        tool_version="1",
        runtime=RuntimeRecord(seconds=1, peak_rss_bytes=1, requests=0),
    )
    assert made.verdict.outcome == "fail"
    assert made.verdict.false_positive_rate is None


@pytest.mark.parametrize(
    ("change", "words"),
    [({"model_types": ("gpt_neox",)}, "holds no models of type 'bert'"), ({"parameters": 10**9}, "too far from")],
)
def test_a_bank_of_another_type_or_size_does_not_speak(change: dict[str, Any], words: str) -> None:
    of = evidence()
    suited = suit(under(of, bank_of(of, **change)))
    assert words in suited.abstains
    assert not calibrated(suited.evidence)
    assert suited.evidence.profile.values == load_profile().values


def test_no_bank_speaks_for_separate_adapters() -> None:
    of = evidence()
    of = dataclasses.replace(of, lineage=dataclasses.replace(of.lineage, relation="adapter"))
    assert "no separate adapters" in suit(under(of, bank_of(of))).abstains


def test_of_two_banks_the_nearer_in_size_speaks() -> None:
    of = evidence()
    own = bank_of(of)
    larger = dataclasses.replace(own, id="larger", parameters=4 * own.parameters)
    assert suit(under(of, larger, own)).evidence.profile.bank == "pico"
    assert suit(under(of, larger)).evidence.profile.bank == "larger"


def test_without_banks_or_weights_nothing_changes() -> None:
    of = under(evidence())
    assert suit(of).evidence is of
    blind = dataclasses.replace(under(evidence(), bank_of(evidence())), drift=None)
    assert suit(blind).evidence is blind


def test_a_bank_that_does_not_know_its_traits_speaks_for_its_type() -> None:
    of = evidence()
    suited = suit(under(of, bank_of(of, traits=())))
    assert (suited.abstains, suited.likeness) == ("", None)
    assert calibrated(suited.evidence)


def test_the_description_of_another_base_is_not_compared() -> None:
    of = evidence(change=shrunk)
    of = dataclasses.replace(of, lineage=dataclasses.replace(of.lineage, status="contradicted"))
    assert suit(under(of, bank_of(evidence(), spread=0.1))).likeness is None


def test_shipped_banks_are_whole() -> None:
    profile: Profile = load_profile()
    for bank in profile.banks:
        assert list(bank.clean_scores) == sorted(bank.clean_scores)
        assert all(len(row) == len(TRAITS) for row in bank.traits)
        assert set(bank.values) <= set(profile.values)
        assert bank.sources.keys() == bank.values.keys()
