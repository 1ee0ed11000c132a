"""Profiles."""

import dataclasses
import json
from hashlib import sha256
from importlib.resources import files

import pytest

from audit.thresholds import DEFAULT_PROFILE, load_profile


def test_the_default_profile_is_whole() -> None:
    profile = load_profile()
    raw = files("audit").joinpath("profiles", f"{DEFAULT_PROFILE}.json").read_bytes()
    assert profile.id == DEFAULT_PROFILE
    assert profile.digest == sha256(raw).hexdigest()
    assert profile.clean_models == len(profile.clean_scores)
    assert list(profile.clean_scores) == sorted(profile.clean_scores)
    assert all(0 <= score <= 1 for score in profile.clean_scores)


def test_every_threshold_says_where_it_came_from() -> None:
    raw = files("audit").joinpath("profiles", f"{DEFAULT_PROFILE}.json").read_text(encoding="utf-8")
    silent = [name for name, entry in json.loads(raw)["thresholds"].items() if not entry.get("source")]
    assert silent == []


@pytest.mark.parametrize("name", ["absent", "../profiles/encoder-2026-11"])
def test_an_absent_profile_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        load_profile(name.replace("../profiles/", "no/"))


def test_an_undefined_threshold_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        load_profile().value("HA000.review")


@pytest.mark.parametrize(("score", "rate"), [(0.05, 1.0), (0.1, 1.0), (0.15, 0.75), (0.3, 0.5), (0.31, 0.25)])
def test_the_rate_counts_clean_scores_at_least_as_high(score: float, rate: float) -> None:
    profile = dataclasses.replace(load_profile(), clean_scores=(0.1, 0.2, 0.3))
    assert profile.false_positive_rate(score) == pytest.approx(rate)


def test_without_a_bank_there_is_no_rate() -> None:
    assert dataclasses.replace(load_profile(), clean_scores=()).false_positive_rate(0.5) is None
