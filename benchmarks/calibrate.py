"""Derives the thresholds of a profile from the bank: ``python -m benchmarks.calibrate --write``, from the root.

Models that are new in the bank are measured first (seconds each); what the rules measured on each is kept in
``benchmarks/results/calibration.json``. From these numbers alone come the thresholds, the scores of the clean models
and the section of docs/benchmarks.md; without ``--write`` they are only printed.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from audit.thresholds import DEFAULT_PROFILE, load_profile
from benchmarks.calibration.fit import FAIL_RATE, FLOORS, REVIEW_RATE, cross_fitted, exact_rules, fit, judge
from benchmarks.calibration.observe import Observation, observe
from benchmarks.calibration.table import calibration_line, section, splice
from benchmarks.zoo.bank import Bank
from benchmarks.zoo.tiers import get_tier

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> None:
    """Measures what is new, derives, and writes when asked to."""
    parser = argparse.ArgumentParser(description="Derive a threshold profile from the bank of fine-tunes.")
    parser.add_argument("--tier", default="real")
    parser.add_argument("--bank", type=Path, default=ROOT / "build" / "zoo")
    parser.add_argument("--profile", default=DEFAULT_PROFILE)
    parser.add_argument("--again", action="store_true", help="measure every model again, after a rule changed")
    parser.add_argument("--write", action="store_true", help="write the profile and docs/benchmarks.md")
    arguments = parser.parse_args()
    observations = _observed(arguments.tier, arguments.bank, again=arguments.again)
    profile_file = ROOT / "audit" / "profiles" / f"{arguments.profile}.json"
    profile = json.loads(profile_file.read_text(encoding="utf-8"))
    page = _derive(observations, profile)
    print(page)
    if arguments.write:
        profile_file.write_text(json.dumps(profile, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        PAGE.write_text(splice(old, page), encoding="utf-8")


def _observed(tier_name: str, root: Path, *, again: bool) -> dict[str, Observation]:
    """Every observation by id, new models measured; saved after each, so that it can be stopped at any time."""
    known: dict[str, Observation] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    tier, bank = get_tier(tier_name), Bank(root / tier_name)
    for model_id in bank.ids():
        if model_id in known and not again:
            continue
        started = time.perf_counter()
        known[model_id] = observe(tier.base, bank.folder(model_id), bank.record(model_id))
        ordered = {name: known[name] for name in sorted(known)}
        RESULTS.write_text(_compact(ordered), encoding="utf-8")
        print(f"{model_id} {time.perf_counter() - started:.1f} s", flush=True)
    return known


def _compact(observations: dict[str, Observation]) -> str:
    """One model a line: a file that can be read and compared."""
    lines = [f"{json.dumps(name)}: {json.dumps(o)}" for name, o in observations.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _derive(observations: dict[str, Observation], profile: dict[str, Any]) -> str:
    """Fill the profile in place and return the section for the page."""
    values = load_profile(profile["id"]).values
    facts = {rule.id: values[f"{rule.id}.score"] for rule in exact_rules() if f"{rule.id}.score" in values}
    least = values["policy.least_coverage"]
    whole = {name: o for name, o in observations.items() if o["coverage"] >= least}
    clean = {name: o for name, o in whole.items() if o["kind"] == "clean"}
    attacked = {name: o for name, o in whole.items() if o["kind"] == "attacked"}
    thresholds = fit(list(clean.values()))
    held_out = cross_fitted(clean, facts)
    for rule, (review, fail) in thresholds.items():
        count = sum(1 for o in clean.values() if rule in o["values"])
        for name, value, rate in (("review", review, REVIEW_RATE), ("fail", fail, FAIL_RATE)):
            profile["thresholds"][f"{rule}.{name}"] = {
                "value": value,
                "source": f"exponential tail of {count} clean models at {rate:g}, floor {FLOORS[rule]:.2g}",
            }
    judged = [j for j in held_out.values() if j.outcome != "not judged"]
    recipes = {(o["recipe"].get("method"), o["recipe"].get("optimiser")) for o in clean.values()}
    profile["calibration"] = calibration_line(len(judged), len(recipes))
    profile["clean_models"] = len(judged)
    profile["clean_scores"] = sorted(round(j.score, 4) for j in judged)
    profile["model_types"] = ["bert"]
    against = {name: (o, judge(o, thresholds, facts)) for name, o in attacked.items()}
    return section(clean, held_out, against, thresholds)


if __name__ == "__main__":
    main()
