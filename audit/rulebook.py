"""The one list of detectors, and what ``hubaudit explain`` prints about a rule."""

import re
from importlib.resources import files

from audit.detectors import (
    adapter_factors,
    adapter_trend,
    card,
    chat_template,
    common_direction,
    confirmed_trigger,
    dimension_outliers,
    even_noise,
    generation_defaults,
    given_data,
    isolated_change,
    joint_change,
    lineage,
    owners,
    partial_change,
    position_rows,
    quantised,
    relation,
    repository_code,
    token_rows,
    tokenizer_changes,
    unreadable,
    unsafe_files,
    vectors,
)
from audit.evidence import Detector, Rule
from audit.thresholds import Profile, load_profile

DETECTORS: tuple[Detector, ...] = (
    lineage.DETECTOR,
    relation.DETECTOR,
    unreadable.DETECTOR,
    unsafe_files.DETECTOR,
    token_rows.DETECTOR,
    position_rows.DETECTOR,
    partial_change.DETECTOR,
    isolated_change.DETECTOR,
    joint_change.DETECTOR,
    common_direction.DETECTOR,
    adapter_trend.DETECTOR,
    adapter_factors.DETECTOR,
    dimension_outliers.DETECTOR,
    even_noise.DETECTOR,
    given_data.DETECTOR,
    vectors.DETECTOR,
    quantised.DETECTOR,
    confirmed_trigger.DETECTOR,
    chat_template.DETECTOR,
    tokenizer_changes.DETECTOR,
    generation_defaults.DETECTOR,
    repository_code.DETECTOR,
    owners.DETECTOR,
    card.DETECTOR,
)


def all_rules() -> tuple[Rule, ...]:
    """Every rule, in the order of the list."""
    return tuple(rule for detector in DETECTORS for rule in detector.rules)


def explain(rule_id: str) -> str:
    """Return the section of the rule book about a rule, as Markdown, with the thresholds of the default profile.

    The case of the id does not matter.

    Raises:
        KeyError: there is no such rule.
    """
    wanted = rule_id.strip().upper()
    return _sections()[wanted] + _thresholds(wanted, load_profile())


def _thresholds(rule_id: str, profile: Profile) -> str:
    """The thresholds of a rule, one line each, and what they were measured on; empty for rules without any."""
    names = [name for name in profile.values if name.startswith(f"{rule_id}.")]
    if not names:
        return ""
    lines = [
        f"- `{name}` = {profile.values[name]:g}" + (f" ({source})" if (source := profile.sources.get(name)) else "")
        for name in names
    ]
    return f"\n**Thresholds** in profile `{profile.id}` ({profile.calibration}):\n\n" + "\n".join(lines) + "\n"


def _sections() -> dict[str, str]:
    """The book cut at its second-level headings that begin with a rule id."""
    text = files(__package__).joinpath("rules.md").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^(?=## )", text)
    return {match.group(1): part.strip() + "\n" for part in parts if (match := re.match(r"## (HA\d{3})\b", part))}
